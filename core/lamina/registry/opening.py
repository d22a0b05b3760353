"""Registries opened with what this machine is set up with: settings, accounts, connections. And looking an account up: login."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.errors import LaminaError
from lamina.model.digest import Digest
from lamina.model.reference import Reference
from lamina.registry.client import Access, Client
from lamina.registry.credentials import Credential, Credentials
from lamina.registry.hosts import read_registries
from lamina.registry.http import Http, drop
from lamina.registry.remote import RegistryDestination, RegistrySource

if TYPE_CHECKING:
    from lamina.registry.hosts import RegistriesSettings


def open_access(*, settings: "RegistriesSettings | None" = None, warn: Callable[[str], None] = lambda _text: None) -> Access:
    """Read the settings and find the accounts. Raises `UsageError` for a file that can't be understood."""
    settings = settings or read_registries()
    return Access(settings=settings, http=Http(timeout_s=settings.timeout_s), credentials=Credentials(warn=warn))


def open_registry_source(reference: Reference, *, access: Access | None = None, described: str = "") -> RegistrySource:
    """Open an image of a registry for reading; nothing is asked yet."""
    return RegistrySource(reference, access or open_access(), described=described)


def open_registry_destination(
    reference: Reference,
    *,
    access: Access | None = None,
    origins: Mapping[Digest, Sequence[str]] | None = None,
    described: str = "",
) -> RegistryDestination:
    """Open a place of a registry for writing; nothing is asked yet. `origins`: repositories of it that may have the blobs."""
    return RegistryDestination(reference, access or open_access(), origins=origins, described=described)


class _One:
    """The account that is being tried."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    def find(self, registry: str, repository: str = "") -> Credential:
        """Give it, whatever is asked."""
        del registry, repository
        return self._credential


def check_login(registry: str, credential: Credential, *, settings: "RegistriesSettings | None" = None) -> None:
    """Ask a registry whether it knows an account. Raises `UnauthorizedError`, `TransferError`, `LaminaError`."""
    settings = settings or read_registries()
    http = Http(timeout_s=settings.timeout_s)
    access = Access(settings=settings, http=http, credentials=_One(credential))
    client = Client(settings.host(registry), "", access, described=registry)
    try:
        response = client.request("GET", "/v2/")
        if response.status != 200:
            raise client.refusal(response)
        is_page = response.headers.get("Content-Type", "").lower().startswith("text/html")
        drop(response)
        if is_page:
            raise LaminaError(f"'{registry}' answers with a web page, not as a registry", hint="correct its name or port")
    finally:
        http.close()
