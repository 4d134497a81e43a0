"""Capture to snapshot: reads what changed, cuts, seals and stores it, and builds the trees.

    archive(repository, writer, capture, *, parent, full, report, stop, limits, clock) -> Archived

Import from `pra_agent.archiver.archiving`; values are in `pra_agent.archiver.values`. The main process walks, builds
trees and feeds the writer; forked workers (one a core) open, read, cut, hash, look up the index, compress and seal.
"""
