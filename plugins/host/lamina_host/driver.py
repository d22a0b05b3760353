"""The network driver `host`: the container uses the host's network namespace, as with `docker run --net host`."""

from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, Attachment, NetworkNamespace


class HostNetwork:
    """No namespace of its own, so there is nothing to set up and nothing to give back."""

    name = "host"
    api_version = API_VERSION

    @hookimpl
    def network_attach(self) -> Attachment:
        """Stay in the host's namespace; its `lo` isn't ours to touch."""
        return Attachment(namespace=NetworkNamespace.HOST, loopback=False)


plugin = HostNetwork()
