//! The order of writes: every step of every protocol, numbered, with the reason why it stands where it stands.
//!
//! Neighbours: the modules of [`crate::protocol`] ask for effects under these names; the crash tests stop after every one.
//!
//! **settle** (begins every protocol): 1 read the pointer consistently. 2 look at the tip on S3: our `snapshot-N` with our uuid, and no
//! `snapshot-(N+1)`; what is missing is published, what is foreign is adopted or marked as a fork *before* anything is written, since
//! N must be published before N+1 can be committed (invariant 8). 3 prove an adoption or a rollback before believing it.
//! 4 write what that says into the pointer.
//!
//! **commit**: 1 take the time, before any object is written, so that the sweep's cutoff can be compared. 2 read what the checks need.
//! 3 evaluate: from here on the change applies, is known, or never will. 4 write manifests: nobody refers to them yet. 5 write the lists
//! that name them. 6 swap the pointer on `rev`: **the commit point**; everything that the new state names is durable by now. 7 look up an
//! unknown answer. Then **publish**.
//!
//! **publish**: 1 put `snapshot-N` if absent: the pointer has decided already, so whoever comes may do it, and a late one finds it done.
//! 2 after an answer that proves nothing, read it back and compare the uuid. 3 read LATEST, 4 raise it if it still holds what was read:
//! it never moves back and never names what does not exist. 5 put EARLIEST with the first snapshot.
//!
//! **stage** (a commit under contention): 1 put a change that is too large for an item into an object, 2 then the item: from here on a lease
//! holder may commit the change, and its writer answers nothing but what it sees. 3 wait, 4 read the item: an answer in it was written after
//! publication. 5 read the lease, 6 take it if it is free: for thrift, since two holders are as safe as two writers. 7 release a change that
//! met a conflict, before that is answered: first the item, then the pointer is read and the change evaluated again. A holder that has read
//! the item before that has read the pointer before, too: it evaluates on the same state, to the same conflict, or its swap fails.
//!
//! **fold**: 1 take the time. 2 read the pointer, 3 **then** the staged items (see stage 7), 4 the objects of the larger ones. The next manifests and
//! lists are written as in **commit** 2 to 5, while the snapshot before may still be on its way to its name. Then **settle** 2: that name
//! must be there, or nothing is swapped (invariant 8). 5 swap the pointer on `rev`. 6 give the lease back before publishing, so that the next
//! holder prepares meanwhile. **publish**, and only then 7 answer the writers. 8 delete answers that nobody has asked for.
//!
//! **create**: 1 put `schema-0` if absent, before the pointer, which makes the table exist. 2 read a schema that is there. 3 create the pointer.
//! 4 read a pointer that is there.
//!
//! **expire**: 1 read options' inputs: names, times, tags, consumers. 2 find the files that die, while all that names them is still there.
//! 3 raise `earliest` in the pointer: from now on no tag may be put below and no reader of the pointer starts there. 4 delete data and changelog files, 5 manifests and lists, 6 the
//! names, oldest first, so that a crash leaves the walk repeatable; 7 move EARLIEST.
//!
//! **sweep**: 1 take the time. 2 raise `sweep_cutoff` in the pointer: a commit that references older files is refused from here on.
//! 3 read the roots, snapshots before tags. 4 list. 5 read what was committed meanwhile. 6 delete.
//!
//! **rollback**: 1 read both states. 2 copy files that are no longer live under new names (a deleted name is never added again).
//! Then as **commit** 4 to 6. **restore**: 1 find the newest snapshot. 2 read it and its files. 3 write the pointer of a new incarnation.
//! **repair**: 1 read both sides of a fork, 2 write lists of theirs plus our delta, 3 swap. **slots**: 1 read, 2 swap.

/// A numbered step, as carried by every request.
pub type StepName = &'static str;

macro_rules! steps {
    ($($name:ident = $text:literal;)*) => {
        $(#[doc = $text] pub const $name: StepName = $text;)*
        /// Every step, in the order of this page.
        pub const ALL: &[StepName] = &[$($text),*];
    };
}

steps! {
    SETTLE_POINTER = "settle/1 read pointer";
    SETTLE_TIP = "settle/2 look at the tip";
    SETTLE_PROVE = "settle/3 prove adoption or rollback";
    SETTLE_SWAP = "settle/4 write adoption or fork";
    COMMIT_TIME = "commit/1 take the time";
    COMMIT_READ = "commit/2 read state for checks";
    COMMIT_MANIFESTS = "commit/4 put manifests";
    COMMIT_LISTS = "commit/5 put lists";
    COMMIT_SWAP = "commit/6 swap pointer";
    COMMIT_LOOK_UP = "commit/7 look up unknown answer";
    STAGE_OBJECT = "stage/1 put large change";
    STAGE_ITEM = "stage/2 stage change";
    STAGE_WAIT = "stage/3 wait";
    STAGE_POLL = "stage/4 look for the answer";
    STAGE_LEASE = "stage/5 read lease";
    STAGE_TAKE = "stage/6 take lease";
    STAGE_RELEASE = "stage/7 release change";
    FOLD_TIME = "fold/1 take the time";
    FOLD_POINTER = "fold/2 read pointer";
    FOLD_STAGED = "fold/3 read staged changes";
    FOLD_OBJECTS = "fold/4 read large changes";
    FOLD_SWAP = "fold/5 swap pointer";
    FOLD_LEASE = "fold/6 give lease back";
    FOLD_ANSWER = "fold/7 answer writers";
    FOLD_CLEAN = "fold/8 delete old answers";
    PUBLISH_SNAPSHOT = "publish/1 put snapshot";
    PUBLISH_READ_BACK = "publish/2 read snapshot back";
    PUBLISH_READ_LATEST = "publish/3 read LATEST";
    PUBLISH_LATEST = "publish/4 raise LATEST";
    PUBLISH_EARLIEST = "publish/5 put EARLIEST";
    CREATE_SCHEMA = "create/1 put schema-0";
    CREATE_READ_SCHEMA = "create/2 read schema";
    CREATE_POINTER = "create/3 create pointer";
    CREATE_LOOK_UP = "create/4 read pointer";
    EXPIRE_READ = "expire/1 read names, times, tags, consumers";
    EXPIRE_WALK = "expire/2 find files that die";
    EXPIRE_RAISE = "expire/3 raise earliest";
    EXPIRE_DATA = "expire/4 delete data files";
    EXPIRE_MANIFESTS = "expire/5 delete manifests";
    EXPIRE_NAMES = "expire/6 delete snapshots";
    EXPIRE_EARLIEST = "expire/7 move EARLIEST";
    SWEEP_TIME = "sweep/1 take the time";
    SWEEP_RAISE = "sweep/2 raise cutoff";
    SWEEP_ROOTS = "sweep/3 read roots";
    SWEEP_LIST = "sweep/4 list";
    SWEEP_AGAIN = "sweep/5 read what came meanwhile";
    SWEEP_DELETE = "sweep/6 delete";
    ROLLBACK_READ = "rollback/1 read both states";
    ROLLBACK_COPY = "rollback/2 copy files";
    RESTORE_FIND = "restore/1 find the newest snapshot";
    RESTORE_READ = "restore/2 read it";
    RESTORE_POINTER = "restore/3 write pointer";
    REPAIR_READ = "repair/1 read both sides";
    REPAIR_LISTS = "repair/2 put lists";
    REPAIR_SWAP = "repair/3 swap pointer";
    SLOTS_READ = "slots/1 read slots";
    SLOTS_SWAP = "slots/2 swap slots";
    CHECK_READ = "check/1 read everything";
    BACK_OFF = "back off";
}
