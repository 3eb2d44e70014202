//! Reading a checkpoint's file, and putting it back into an empty store.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ferrite_io::{AlignedBuf, Disk, File, OpenMode, World};
use ferrite_telemetry::{Attribute, cold, cold_span};
use thiserror::Error;

use super::file::{CHUNK_HEADER, ChunkHeader, ChunkKind, FileHeader, HEADER_LEN, Meta, extents_of};
use super::scan::{Scan, ScanError, scan_log};
use crate::address::{FILE_HEADER, file_offset};
use crate::datadir::NamedCheckpoint;
use crate::device::extents_path;
use crate::flush::{EXTENTS_MAGIC, LOG_MAGIC, check_file_header};
use crate::index::Index;
use crate::key::{HashSeed, Key, hash_in};
use crate::objects::{Cut, Descriptor, Extent, ExtentError, NamedExtent, verify_extent};
use crate::record::RawRecord;
use crate::store::{Store, WorkerHandle};
use crate::sync::Ordering;

/// A file that is not what a checkpoint needs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is damaged at offset {offset}: {what}", path.display())]
pub struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub what: String,
}

/// Why a checkpoint was not restored. The store is as empty as before.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk refuses to read: whether the file is damaged is not known.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Its log has records that no page of this server holds.
    #[error(
        "{} was made by a server with pages of {needed} bytes, and this one's have {have}: storage.page_size has to be {needed} or more \
         (0 derives it from the regions)", path.display()
    )]
    SmallPages { path: PathBuf, needed: u64, have: u64 },
}

/// What a checkpoint held besides index and log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// What [`super::Taking::upper`] was given, in order.
    pub chunks: Vec<Vec<u8>>,
    /// What the cut was given.
    pub upper: Vec<u8>,
    /// Entries of the index.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the log that were read.
    pub log_bytes: u64,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// A checkpoint's file that is read from front to back.
pub(crate) struct Reading<F> {
    file: F,
    path: PathBuf,
    pub header: FileHeader,
    at: u64,
    len: u64,
}

impl<F: File> Reading<F> {
    pub async fn open<D: Disk<File = F>>(disk: &D, named: &NamedCheckpoint) -> Result<Self, LoadError> {
        let (file, bytes) = open(disk, &named.path, HEADER_LEN).await?;
        let damaged = |what| Damage { path: named.path.clone(), offset: 0, what };
        let header = FileHeader::decode(&bytes).map_err(damaged)?;
        if header.salt != named.entry.salt {
            return Err(damaged("it is not the one that the manifest names".to_owned()).into());
        }
        Ok(Self { file, path: named.path.clone(), header, at: HEADER_LEN, len: named.entry.len })
    }

    /// The next chunk's kind and payload.
    pub async fn next(&mut self) -> Result<(ChunkKind, Vec<u8>), LoadError> {
        let header = self.next_header().await?;
        self.payload(header).await
    }

    /// [`Reading::next`], passing over the image and what the layer above has kept.
    async fn next_of_extents(&mut self) -> Result<(ChunkKind, Vec<u8>), LoadError> {
        loop {
            let header = self.next_header().await?;
            match header.kind {
                ChunkKind::Index | ChunkKind::Upper => self.at += CHUNK_HEADER as u64 + header.len,
                ChunkKind::Extents | ChunkKind::End => return self.payload(header).await,
            }
        }
    }

    async fn next_header(&mut self) -> Result<ChunkHeader, LoadError> {
        let header = self.read(CHUNK_HEADER as u64).await?;
        ChunkHeader::decode(&header, self.at, self.header.salt)
            .ok_or_else(|| self.damaged("no chunk begins there").into())
    }

    async fn payload(&mut self, header: ChunkHeader) -> Result<(ChunkKind, Vec<u8>), LoadError> {
        let begin = self.at;
        self.at += CHUNK_HEADER as u64;
        let payload = self.read(header.len).await?;
        self.at += header.len;
        if !header.payload_is_intact(&payload) {
            self.at = begin;
            return Err(self.damaged("the chunk's checksum does not match").into());
        }
        Ok((header.kind, payload))
    }

    /// The last chunk, which [`Reading::next`] has given.
    pub fn end(&self, payload: &[u8]) -> Result<Meta, LoadError> {
        match Meta::decode(payload, self.header.version) {
            Some(meta) if self.at == self.len => Ok(meta),
            _ => Err(self.damaged("the last chunk is not what the manifest says").into()),
        }
    }

    async fn read(&self, len: u64) -> Result<Vec<u8>, LoadError> {
        if self.at + len > self.len {
            return Err(self.damaged("a chunk is longer than the file").into());
        }
        read_exactly(&self.file, &self.path, self.at, len).await
    }

    /// The extents of a chunk that [`Reading::next`] has given.
    pub fn extents(&self, payload: &[u8]) -> Result<Vec<NamedExtent>, LoadError> {
        extents_of(payload).ok_or_else(|| self.damaged("a chunk of extents is not understood").into())
    }

    fn damaged(&self, what: &str) -> Damage {
        Damage { path: self.path.clone(), offset: self.at, what: what.to_owned() }
    }
}

/// Opens a file that must be there, and reads its first bytes, `len_max` or all.
async fn open<D: Disk>(disk: &D, path: &Path, len_max: u64) -> Result<(D::File, Vec<u8>), LoadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => {
            LoadError::Damaged(Damage { path: path.to_owned(), offset: 0, what: "it is missing".to_owned() })
        }
        _ => LoadError::Read { path: path.to_owned(), source },
    };
    let file = disk.open(path, OpenMode::ReadOnly).await.map_err(failed)?;
    let len = file.len().await.map_err(failed)?;
    let bytes = read_exactly(&file, path, 0, len.min(len_max)).await?;
    Ok((file, bytes))
}

async fn read_exactly<F: File>(file: &F, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::with_capacity(len as usize);
    while (bytes.len() as u64) < len {
        let at = offset + bytes.len() as u64;
        let done = file.read_at(AlignedBuf::zeroed(len as usize - bytes.len()), at).await;
        match done.result {
            Ok(0) => {
                return Err(Damage { path: path.to_owned(), offset: at, what: "it ends there".to_owned() }.into());
            }
            Ok(read) => bytes.extend_from_slice(&done.buf[..read]),
            Err(source) => return Err(LoadError::Read { path: path.to_owned(), source }),
        }
    }
    Ok(bytes)
}

/// What a checkpoint's file says besides its image.
pub(crate) struct Contents {
    pub header: FileHeader,
    pub meta: Meta,
    pub extents: Vec<NamedExtent>,
}

/// Reads a whole checkpoint; what its image says goes to `image`.
pub(crate) async fn read_checkpoint<D: Disk>(
    disk: &D,
    named: &NamedCheckpoint,
    image: &mut impl FnMut(&[u8]),
) -> Result<Contents, LoadError> {
    let mut reading = Reading::open(disk, named).await?;
    let mut extents = Vec::new();
    loop {
        match reading.next().await? {
            (ChunkKind::Index, payload) => image(&payload),
            (ChunkKind::Upper, _) => {}
            (ChunkKind::Extents, payload) => extents.extend(reading.extents(&payload)?),
            (ChunkKind::End, payload) => {
                let meta = reading.end(&payload)?;
                return match meta.extents == extents.len() as u64 {
                    true => Ok(Contents { header: reading.header, meta, extents }),
                    false => Err(reading.damaged("it names fewer extents, or more, than it says").into()),
                };
            }
        }
    }
}

/// Reads what a checkpoint says last, and the headers of the chunks before it.
pub(super) async fn read_meta<D: Disk>(disk: &D, named: &NamedCheckpoint) -> Result<Meta, LoadError> {
    let mut reading = Reading::open(disk, named).await?;
    loop {
        if let (ChunkKind::End, payload) = reading.next_of_extents().await? {
            return reading.end(&payload);
        }
    }
}

/// Bytes of the longest record that a checkpoint's log may have; `None` if it cannot be read.
pub(crate) async fn longest_record<D: Disk>(disk: &D, named: &NamedCheckpoint) -> Option<u64> {
    read_meta(disk, named).await.ok().map(|meta| meta.longest_record())
}

/// Opens the log file of number `id`, which must have everything below `tail`.
pub(crate) async fn open_log_of<D: Disk>(disk: &D, path: &Path, id: u64, tail: u64) -> Result<D::File, LoadError> {
    open_device(disk, path, (LOG_MAGIC, "log"), id, file_offset(tail)).await
}

/// Opens the file of extents of number `id`, which must have all of these.
pub(crate) async fn open_extents_of<D: Disk>(
    disk: &D,
    log: &Path,
    id: u64,
    extents: &[NamedExtent],
) -> Result<D::File, LoadError> {
    let end = extents.iter().map(|extent| extent.offset.saturating_add(extent.bytes)).max().unwrap_or(0);
    open_device(disk, &extents_path(log), (EXTENTS_MAGIC, "file of extents"), id, end).await
}

async fn open_device<D: Disk>(
    disk: &D,
    path: &Path,
    (magic, name): ([u8; 8], &str),
    id: u64,
    end: u64,
) -> Result<D::File, LoadError> {
    let damaged = |offset, what: String| LoadError::Damaged(Damage { path: path.to_owned(), offset, what });
    let (file, start) = open(disk, path, FILE_HEADER).await?;
    let found = check_file_header(&start, magic).map_err(|what| damaged(0, what))?;
    if found != id {
        return Err(damaged(0, format!("it is not the {name} that the checkpoint leads into")));
    }
    let len = file.len().await.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    match len < end {
        true => Err(damaged(len, format!("it ends there, and the checkpoint needs {end} bytes"))),
        false => Ok(file),
    }
}

impl ExtentError {
    /// Of an extent of the file at `path`.
    pub(crate) fn of(self, path: &Path, extent: Extent) -> LoadError {
        let what = match self {
            Self::Io(source, _) => return LoadError::Read { path: path.to_owned(), source },
            Self::Short(_) => "an extent ends too early",
            Self::Damaged(_) | Self::Gone => "the extent's checksum does not match",
        };
        Damage { path: path.to_owned(), offset: extent.offset, what: what.to_owned() }.into()
    }
}

impl ScanError {
    pub(crate) fn of(self, path: &Path) -> LoadError {
        let path = path.to_owned();
        match self {
            Self::Read { source, .. } => LoadError::Read { path, source },
            Self::Damaged { offset, what } => Damage { path, offset, what }.into(),
        }
    }
}

/// Puts a checkpoint back into the store of `handle`, which has never held anything and is nobody else's yet. `log` is the
/// log file, to be opened with [`crate::open_log`] afterwards.
///
/// # Errors
/// The store is empty then.
pub async fn restore<W: World>(
    handle: &WorkerHandle,
    world: &W,
    named: &NamedCheckpoint,
    log: &Path,
) -> Result<Restored, LoadError> {
    let store = handle.store();
    let first = store.index.first();
    let span = cold_span!(CheckpointLoad, CheckpointBytes, CheckpointEntries, CheckpointLogBytes);
    let restored = cold::step(&span, read_into(handle, world, named, log)).await;
    match &restored {
        Ok(restored) => {
            cold::set(&span, Attribute::CheckpointBytes, restored.bytes);
            cold::set(&span, Attribute::CheckpointEntries, restored.entries);
            cold::set(&span, Attribute::CheckpointLogBytes, restored.log_bytes);
        }
        Err(_) => store.index.begin_with(first),
    }
    restored
}

async fn read_into<W: World>(
    handle: &WorkerHandle,
    world: &W,
    named: &NamedCheckpoint,
    log: &Path,
) -> Result<Restored, LoadError> {
    let store = handle.store();
    let mut reading = Reading::open(world.disk(), named).await?;
    let header = reading.header;
    if !Index::may_begin_with(header.first_buckets) {
        return Err(reading.damaged("its index has an impossible size").into());
    }
    store.index.begin_with(header.first_buckets as usize);
    let (mut chunks, mut entries, mut extents) = (Vec::new(), 0, Vec::new());
    let meta = loop {
        match reading.next().await? {
            (ChunkKind::Index, payload) => match handle.pin().put_back(&payload) {
                Some(some) => entries += some,
                None => return Err(reading.damaged("a chunk of the index is not understood").into()),
            },
            (ChunkKind::Upper, payload) => chunks.push(payload),
            (ChunkKind::Extents, payload) => extents.extend(reading.extents(&payload)?),
            (ChunkKind::End, payload) => break reading.end(&payload)?,
        }
    };
    let counts_match = entries == meta.entries && extents.len() as u64 == meta.extents;
    if !counts_match || meta.tail != named.entry.tail || meta.position != named.entry.position {
        return Err(reading.damaged("the last chunk contradicts what comes before it, or the manifest").into());
    }
    if meta.forgotten {
        store.index.begin_with(header.first_buckets as usize);
    }
    let file = open_log_of(world.disk(), log, header.log_id, meta.tail).await?;
    let (needed, have) = (meta.longest_record(), store.log.record_max() as u64);
    if have < needed {
        return Err(LoadError::SmallPages { path: named.path.clone(), needed, have });
    }
    let extents_file = open_extents_of(world.disk(), log, header.extents_id, &extents).await?;
    let mut owners = Owners::of(&extents);
    let caught_up = catch_up(handle, &file, &meta, HashSeed::new(header.hash_seed), &mut owners).await;
    caught_up.map_err(|error| error.of(log))?;
    for (id, extent) in owners.found {
        // As of the log itself: what was written last.
        let verified = verify_extent(&extents_file, id, extent).await;
        verified.map_err(|error| error.of(&extents_path(log), extent))?;
    }
    let objects = &store.log.objects;
    let cut = Cut { number: named.entry.number, next_id: meta.next_id, is_being_taken: false };
    objects.extents.restore(cut, &extents).map_err(|what| reading.damaged(&what))?;
    objects.restore_next_id(meta.next_id);
    objects.file_id.store(header.extents_id, Ordering::Release);
    store.restore_seed(header.hash_seed);
    store.log.restore(meta.begin, meta.tail, &meta.eras);
    store.log.quarantine.restore(&meta.quarantined);
    store.index.drop_below(meta.begin, |address| store.log.quarantine.has(address));
    for &(entry, to) in &meta.quarantined.links {
        let pinned = handle.pin();
        store.index.lead(store.index.hash_of_entry(entry), to, &pinned.guard);
    }
    store.log.id.store(header.log_id, Ordering::Release);
    meta.retired.iter().for_each(|&(space, tail)| store.retired.add(space, tail));
    let log_bytes = meta.tail - meta.scan_from;
    Ok(Restored {
        chunks,
        upper: meta.upper,
        entries: store.index.entries() as u64,
        bytes: named.entry.len,
        log_bytes,
        unix_ms: meta.unix_ms,
    })
}

/// Puts what an older checkpoint needs out of the reach of the store that a newer one was restored into, by [`restore`] and
/// just before.
///
/// # Errors
/// It cannot be fallen back to. Nothing has changed.
pub async fn keep<W: World>(store: &Store, world: &W, named: &NamedCheckpoint) -> Result<(), LoadError> {
    let mut reading = Reading::open(world.disk(), named).await?;
    let mut extents = Vec::new();
    let meta = loop {
        match reading.next_of_extents().await? {
            (ChunkKind::End, payload) => break reading.end(&payload)?,
            (_, payload) => extents.extend(reading.extents(&payload)?),
        }
    };
    let header = reading.header;
    let damaged = |what: &str| Damage { path: named.path.clone(), offset: 0, what: what.to_owned() };
    let objects = &store.log.objects;
    let is_of_these = header.log_id == store.log.id.load(Ordering::Acquire)
        && header.extents_id == objects.file_id.load(Ordering::Acquire)
        && meta.next_id <= objects.next_id()
        && meta.extents == extents.len() as u64;
    if !is_of_these {
        return Err(damaged("it contradicts itself, or the one after it").into());
    }
    let cut = Cut { number: named.entry.number, next_id: meta.next_id, is_being_taken: false };
    Ok(objects.extents.keep(cut, &extents).map_err(|what| damaged(&what))?)
}

/// Which extents of a checkpoint belong to records that are read.
pub(crate) struct Owners {
    /// Offset → id.
    named: BTreeMap<u64, u64>,
    /// Those whose record was read.
    pub found: BTreeMap<u64, Extent>,
}

impl Owners {
    pub fn of(extents: &[NamedExtent]) -> Self {
        let named = extents.iter().map(|extent| (extent.offset, extent.id)).collect();
        Self { named, found: BTreeMap::new() }
    }

    /// A record was read.
    pub fn seen(&mut self, record: RawRecord<'_>) {
        if let Some(Descriptor { id, extent: Some(extent) }) = record.descriptor()
            && self.named.get(&extent.offset) == Some(&id)
        {
            self.found.insert(id, extent);
        }
    }
}

/// Repeats what happened to the index between the walk and the cut.
async fn catch_up<F: File>(
    handle: &WorkerHandle,
    file: &F,
    meta: &Meta,
    seed: HashSeed,
    owners: &mut Owners,
) -> Result<(), ScanError> {
    let store = handle.store();
    let mut removed = meta.removed.iter().copied().peekable();
    let scan = meta.scan();
    let crc = scan_log(file, scan, &mut |address, record| {
        while let Some((hash, tail)) = removed.next_if(|&(_, tail)| tail <= address) {
            store.index.remove_older(hash, tail);
        }
        let hash = match record.has_long_key() {
            true => hash_in(record.key()),
            false => Key::new(&seed, record.space(), record.key()).hash,
        };
        handle.pin().lead(hash, address);
        owners.seen(record);
    })
    .await?;
    removed.for_each(|(hash, tail)| store.index.remove_older(hash, tail));
    match crc == meta.scan_crc {
        true => Ok(()),
        false => Err(ScanError::Damaged {
            offset: file_offset(meta.scan_from),
            what: format!("what it holds up to offset {} is not what was written there", file_offset(meta.tail)),
        }),
    }
}

impl Meta {
    /// The part of the log that a recovery reads: all of it is of the last page size.
    pub fn scan(&self) -> Scan {
        let page_size = self.eras.last().map_or(crate::address::FILE_HEADER, |&(_, size)| size);
        Scan { from: self.scan_from, to: self.tail, page_size }
    }
}
