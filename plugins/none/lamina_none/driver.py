"""The network driver `none`: a network namespace of the container's own, with loopback and no way out."""

from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Attachment, NetworkNamespace


class NoNetwork:
    """The namespace lives as long as the container's processes; there is nothing to give back."""

    name = "none"
    api_version = API_VERSION

    @hookimpl
    def network_attach(self) -> Attachment:
        """Ask for a new namespace with `lo` up."""
        return Attachment(namespace=NetworkNamespace.NEW, loopback=True)


plugin = NoNetwork()
