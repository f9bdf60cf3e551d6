"""The durable log: segments, group commit, recovery. format.py states what is on disk; Log is what others use.

log = Log.open(folder, options=LogOptions(), metrics=metrics, name="readings")
first = log.append([b"...", b"..."]); log.put_state("mark/board-1", b"...")
batch = log.seal()            # on the loop; None if nothing is buffered
log.write(batch)              # in a worker thread; OSError: write the same again later
log.settle(batch)             # on the loop: now it counts, now PUBACK
log.read(number, records_max=100, bytes_max=65536); log.release(before)
"""

from edge.log.damage import Damage
from edge.log.files import DiskFiles, File, Files
from edge.log.log import Log, Segment
from edge.log.writer import Batch, LogOptions, Replacement

__all__ = ["Batch", "Damage", "DiskFiles", "File", "Files", "Log", "LogOptions", "Replacement", "Segment"]
