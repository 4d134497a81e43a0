"""The repository: restic's format v2, one host's encrypted store. This is its interface for the rest of the program.

Import from the modules (this one imports nothing, so that looking at it is cheap)::

    from pra_agent.repository.repository import Repository, BlobWriter, Sealer, SealedBlob, Chunker, Lock, LockInfo
    from pra_agent.repository.host import Host, this_host
    from pra_agent.repository.settings import Settings, ScryptCost

    Repository.init(backend, password, *, clock, host, state=None, settings=None)   RepositoryExists
    Repository.open(backend, password, *, clock, host, state=None, settings=None)   NoRepository, WrongKey
        .id .backend .host .clock .settings .state (Path | None: <state>/repositories/<id>)
        .load_index()               LIST and load; needed before has/read/writer, and after each taking of a lock;
                                    under a lock it also indexes what a killed run of this host had stored
        .load_readable_index()      the same for check and repair; returns the unreadable index files and why
        .has(handle) .sizes(handles) .read(handles) .read_blob(handle) .read_tree(raw id)
        .snapshots() .unreadable_snapshots .find_snapshot("latest" | prefix) .save_snapshot(s) .remove_snapshot(id)
        .lock(exclusive=False)      context of a Lock (.id, .check(), .confirm()); Locked, LockLost
        .confirm_lock()             raises LockLost; for whoever writes or deletes without the writer
        .unlock(everything=False)   removes stale (or all) locks;  .locks.read_all() lists them as LockInfo
        .writer()                   context of a BlobWriter; needs a lock; one at a time
            .add(type, plaintext, id=None) -> raw id      .add_sealed(SealedBlob) -> bool, whether it was new
            .repack(SealedBlob)     stores it although it is known      .flush()    .stats
        .sealer() -> Sealer         .seal(type, plaintext, id=None) -> SealedBlob; fork-safe
        .chunker() -> Chunker       .chunks(read) -> Iterator[bytes | memoryview]; .min_size; fork-safe
        .keys -> KeyRing            .list() .add(password, cost=None) .remove(id) .passwd(password, cost=None) .current

A writer that is left with `Interrupted` still makes durable what it has; with any other error, what was uploaded is
indexed and the rest dropped. While a lock is held from the main thread, SIGHUP is ignored where it would end the
process: `restic unlock` sends it to the pids of locks to see who is alive.

Order for a backup: `with repository.lock(): repository.load_index(); with repository.writer() as writer: ...` and
`save_snapshot` after the writer's context has ended, still under the lock. Changing anything without a lock is a
RuntimeError. Workers may be forked any time after `load_index`; in them `has`, `sizes`,
sealer and chunker work, and `read*` makes its own threads; they must end with `os._exit`.

For prune, check, repair and copy, inside this package: `repository.index` (`index.Index`: `packs()`, `memberships()`,
`find_all`, `tables`, `files`), `pack.read_header`, `pack.pack_size`, `repository.stored_blobs(pack, entries)` with
`sealer.still_sealed` and `BlobWriter.repack`, `index.encode_index`/`decode_index`, `repository.files` (`SealedFiles`:
`read`, `read_many`, `write(kind, document)`), `repository.cache` (or None).
"""
