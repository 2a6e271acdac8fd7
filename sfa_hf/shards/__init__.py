"""Any values laid out like this rank's shards: in memory, in a mapped file, on the device, in a folder."""
