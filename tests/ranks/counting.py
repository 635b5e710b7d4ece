"""A communicator that counts its messages."""

from collections import Counter

from pint.parallel import Communicator


class Counting(Communicator):
    """Passes everything on to another communicator, and counts by the name of the method.

    A communicator of one rank sends no messages: its calls are not counted.
    """

    def __init__(self, comm, calls=None):
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.calls = Counter() if calls is None else calls

    def _count(self, name):
        if self.size > 1:
            self.calls[name] += 1

    def isend(self, array, dest):
        self._count("isend")
        return self.comm.isend(array, dest)

    def irecv(self, array, source):
        self._count("irecv")
        return self.comm.irecv(array, source)

    def allgather_blocks(self, array, rows=None):
        self._count("allgather")
        return self.comm.allgather_blocks(array, rows)

    def gather_blocks(self, array, root=0):
        self._count("gather")
        return self.comm.gather_blocks(array, root)

    def sum(self, array):
        self._count("sum")
        return self.comm.sum(array)

    def bcast(self, array, root):
        self._count("bcast")
        return self.comm.bcast(array, root)

    def barrier(self):
        self._count("barrier")
        self.comm.barrier()

    def duplicate(self):
        return self

    def reversed(self):
        return Counting(self.comm.reversed(), self.calls)

    def split(self, size):
        return Counting(self.comm.split(size), self.calls)

    def across(self, size):
        return Counting(self.comm.across(size), self.calls)

    def abort(self):
        self.comm.abort()
