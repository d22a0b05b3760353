"""Images on their way: to and from registries, archives, directories and other engines.

transport.py       what a place is that images come from and go to
places.py          how people write places, and opening them; one file to a transport:
docker_archive.py  docker-archive:, both ways; archive_file.py reads archives in any order
oci_layout.py      oci:, both ways, and reading oci-archive:, which oci_archive.py writes; oci_form.py knows the media types
directory.py       dir:
docker_daemon.py   docker-daemon:, by the Engine API
local.py           lamina:, our own store
writing.py         files that appear whole or not at all
remote.py          docker://, registries; opening.py opens them with this machine's settings and accounts
client.py          requests to one host; http.py the connections, auth.py who asks, credentials.py the accounts, hosts.py the ways
pull.py            from any place into the store; fetch.py brings the blobs; report.py tells of it
push.py            from any place to any other
"""
