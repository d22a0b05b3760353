"""One catalogue of behaviours and measurements, run in real containers on several storage drivers and laid side by side.

    run        `compare`: the whole, in a place of its own that is gone at the end
    catalogue  what a probe is; `probes/` has them all
    lab        a container for one probe, on an image whose files are known (`samples`)
    inside     Python code of ours running in a container's namespaces
    disk       what the same images and containers take
    timings    how long the same work takes, in rounds, as ratios
    recorded   what a file system that isn't here answered when it was asked, beside the driver that stands in for it
    report     all answers as one value, and what they come to in words; `text` and `page` show it

It judges no driver right or wrong, as the conformance kit does: unions may differ, and this says where. Only `cli` imports it.
"""
