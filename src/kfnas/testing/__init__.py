"""Shipped doubles, real servers and contract suites, for kfnas's own tests and for those of other stores, trackers and devices.

    seaweedfs      a real S3 server
    store_suite    what every `BlobStore` must do
    faults         failures and kills at a chosen operation of a store
    pool_races     writers of one pool at once, one of them killed
    table_device   a device whose latencies are known beforehand

Each is imported by its own name: some need packages that kfnas itself does not.
"""

__all__: list[str] = []
