"""State: the database, content, images, layers, containers.

database.py        the SQLite file, its schema, transactions; reserve.py keeps room for removals on a full disk
configfile.py      the configuration file, which the settings of several rooms come from
operations.py      who is changing the store, and locks
content.py         blobs and index: a valid OCI image layout
images.py          images and their names; image_lookup.py finds them, names.py lists names for a shell, image_places.py remembers
                   what registries have of them, image_index.py is the layout's index, image_history.py tells their steps
image_archive.py   load and save; archive_spool.py, oci_archive.py, docker_archive.py are the forms, docker_archive_out.py and
                   tar_out.py write them; archive_plan.py and early_unpacking.py unpack the layers while they are loaded
image_build.py     import and commit; changes.py is their --change
layer_ingest.py    a layer's tar on its way into the store
bootstrap.py       an image out of the host's own programs; elf.py finds the libraries they load
layers.py          what the drivers have on disk; views.py makes their mounts, layer_trees.py has a layer's for a driver's hooks,
                   reading.py keeps a view right while somebody looks
containers.py      containers' records
events.py          the journal of events
id_ranges.py       which of the host's ids are which container's users
networks.py        networks' records: who is in them, which addresses and ports are taken
docker_data.py     reading a Docker data directory; docker_config.py and tar_split.py read what lies in it
"""
