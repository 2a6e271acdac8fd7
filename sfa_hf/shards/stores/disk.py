"""A mapped safetensors file of this rank."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from sfa_hf.errors import ConfigError
from sfa_hf.files.atomic import link_or_copy
from sfa_hf.shards import file as shard_file
from sfa_hf.shards.store import FlatStore


class DiskStore(FlatStore):
    """A mapped file; the page cache holds what is in use.

    Its folder is made and, once it is empty, removed.

    Raises:
        ConfigError: there is no room, or the folder cannot be written.
    """

    name = "disk"
    in_file = True

    def allocate(self) -> Tensor:
        """Reserve the disk space and map it."""
        file = self.place.file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return shard_file.reserve(file, self.place.shards, self.place.dtype)
        except OSError as error:
            self.release()
            size = self.place.numel * self.place.dtype.itemsize
            right = f"{size} bytes of room in output_dir, or anchor_device 'cpu'"
            raise ConfigError("anchor_device", f"'disk': {file}: {error.strerror}", right) from error

    def save(self, path: Path) -> None:
        """Link the file where that is possible."""
        link_or_copy(self.place.file, path)

    def release(self) -> None:
        """Delete the file, and the folder with the last of them; pages still mapped live on."""
        with suppress(OSError):  # it could not be made, other files are still there, or it has gone
            self.place.file.unlink(missing_ok=True)
            self.place.file.parent.rmdir()
