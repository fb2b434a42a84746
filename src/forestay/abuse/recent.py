"""The last few prompt hashes of somebody, and how near a new one is to them. Pure; bounded; called by the signals."""

import dataclasses

import numpy as np

FAR = 65  # farther than any two hashes can be


@dataclasses.dataclass(slots=True)
class RecentHashes:
    """A ring of 64-bit hashes; `most` bounds it. They are kept as bytes, which numpy compares all at once."""

    most: int = 64
    kept: bytearray = dataclasses.field(default_factory=bytearray)
    next_slot: int = 0

    def __len__(self) -> int:
        return len(self.kept) >> 3

    def add(self, value: int) -> None:
        """Keep a hash, in the place of the oldest when the ring is full."""
        if len(self.kept) < 8 * self.most:
            self.kept += value.to_bytes(8, "little")
            return
        start = 8 * self.next_slot
        self.kept[start : start + 8] = value.to_bytes(8, "little")
        self.next_slot = (self.next_slot + 1) % self.most

    def nearest(self, value: int) -> int:
        """Return the distance in bits to the nearest kept hash, FAR when none is kept."""
        return self.nearest_slot(value)[0]

    def nearest_slot(self, value: int) -> tuple[int, int]:
        """Return the distance to the nearest kept hash and its slot; FAR and -1 when none is kept."""
        if not self.kept:
            return FAR, -1
        distances = np.bitwise_count(np.frombuffer(self.kept, dtype="<u8") ^ np.uint64(value))
        slot = int(distances.argmin())
        return int(distances[slot]), slot

    def values(self) -> list[int]:
        """Return the kept hashes, by slot."""
        return np.frombuffer(self.kept, dtype="<u8").tolist()
