//! Reading an export, row by row, and believing nothing in it.

use std::collections::VecDeque;
use std::io::Read;

use dovetail_proto::v1 as wire;
use dovetail_routing::snapshot::Digest;
use dovetail_routing::state::State;
use prost::Message as _;
use prost::bytes::Bytes;
use zstd::bulk::Decompressor;

use super::frame::{Hashed, Kind, MAGIC};
use super::{
    BASE_BYTES_MAX, BLOCK_BYTES_MAX, Base, ExportError, FORMAT, Header, Statement, Trailer, WHAT,
};
use crate::chain::{BEGINNING, Chain};

/// An id or an identity at most, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Reads an export from `R`, which should be buffered.
///
/// Every row that it gives follows on the one before; the end is only reached when the
/// trailer and the closing hash fit all that was read.
pub struct ExportReader<R> {
    input: Hashed<R>,
    header: Header,
    base: Option<wire::ExportBase>,
    rows: VecDeque<wire::LedgerRow>,
    chain: Chain,
    decompressor: Decompressor<'static>,
    trailer: Option<Trailer>,
}

impl<R> std::fmt::Debug for ExportReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportReader")
            .field("header", &self.header)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl<R: Read> ExportReader<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<Self, ExportError> {
        let mut input = Hashed::new(input);
        match input.take::<8>() {
            Ok(magic) if magic == *MAGIC => {}
            Ok(_) | Err(ExportError::File { .. }) => return Err(ExportError::OtherKind),
            Err(error) => return Err(error),
        }
        let (kind, payload) = input.take_frame()?;
        if kind != Kind::Header {
            return Err(ExportError::file(format!("it begins with a {kind:?}, not with a header")));
        }
        let message = wire::ExportHeader::decode(payload.as_slice())
            .map_err(|error| ExportError::file(format!("the header: {error}")))?;
        if message.format > FORMAT {
            return Err(ExportError::Newer { found: message.format });
        }
        let base = message.base.clone();
        let header = header_of(message)?;
        if let Some(base) = &base {
            check_base(&header, base)?;
        }
        let chain = Chain::new(&*header.cluster_id, header.first, header.previous);
        Ok(Self {
            input,
            header,
            base,
            rows: VecDeque::new(),
            chain,
            decompressor: Decompressor::new().map_err(ExportError::Read)?,
            trailer: None,
        })
    }

    /// Whose ledger it is, and where it begins.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The place after the last row that was given.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The state before the first row; the empty one where the log begins, `None` where
    /// the file has none. Ask before the first row.
    pub fn base(&mut self) -> Result<Option<Base>, ExportError> {
        let Some(base) = self.base.take() else {
            let empty =
                || Base { index: 0, digest: State::default().digest(), state: State::default() };
            return Ok(self.header.begins_the_log().then(empty));
        };
        let bytes = self.state(&base)?;
        let state = State::decode(&bytes)
            .map_err(|error| ExportError::file(format!("the base's state: {error}")))?;
        let digest = state.digest();
        if digest.0[..] != base.digest[..] {
            return Err(ExportError::file("the base's state does not match its digest"));
        }
        Ok(Some(Base { index: base.index, digest, state }))
    }

    fn state(&mut self, base: &wire::ExportBase) -> Result<Vec<u8>, ExportError> {
        let mut state = Vec::new();
        while (state.len() as u64) < base.bytes {
            let (kind, payload) = self.input.take_frame()?;
            if kind != Kind::State {
                return Err(ExportError::file("a piece of the base's state is missing"));
            }
            let piece = wire::ExportState::decode(payload.as_slice())
                .map_err(|error| ExportError::file(format!("the base's state: {error}")))?;
            let plain = self
                .decompress(&piece.zstd, piece.bytes)
                .map_err(|reason| ExportError::file(format!("the base's state: {reason}")))?;
            if plain.is_empty() || state.len() as u64 + plain.len() as u64 > base.bytes {
                return Err(ExportError::file("the base's state has another length than it says"));
            }
            state.extend_from_slice(&plain);
        }
        Ok(state)
    }

    /// The next row; `None` after the last, when the whole file was found to fit.
    pub fn next_row(&mut self) -> Result<Option<wire::LedgerRow>, ExportError> {
        if let Some(base) = self.base.take() {
            // Nobody asked for the state; its frames are passed over, and hashed.
            self.state(&base)?;
        }
        while self.rows.is_empty() {
            if self.trailer.is_some() {
                return Ok(None);
            }
            self.next_frame()?;
        }
        let row = self.rows.pop_front();
        if let Some(row) = &row {
            self.chain.follow(row)?;
        }
        Ok(row)
    }

    fn next_frame(&mut self) -> Result<(), ExportError> {
        let before = self.input.hash();
        let due = self.chain.next();
        let (kind, payload) = self.input.take_frame().map_err(|error| placed(error, due))?;
        match kind {
            Kind::Block => self.block(&payload),
            Kind::Trailer => self.end(&payload, before),
            Kind::Header | Kind::State => {
                Err(ExportError::at(due, format!("a {kind:?} stands where rows are due")))
            }
        }
    }

    fn block(&mut self, payload: &[u8]) -> Result<(), ExportError> {
        let due = self.chain.next();
        let broken = |reason: String| ExportError::at(due, format!("the block of rows: {reason}"));
        let block =
            wire::ExportBlock::decode(payload).map_err(|error| broken(error.to_string()))?;
        let plain = self.decompress(&block.zstd, block.bytes).map_err(broken)?;
        let rows = wire::ExportRows::decode(Bytes::from(plain))
            .map_err(|error| broken(error.to_string()))?
            .rows;
        if rows.len() as u64 != u64::from(block.rows) || rows.is_empty() {
            return Err(broken("it holds another number of rows than it says".to_owned()));
        }
        if rows[0].index != block.first {
            return Err(broken("it begins with another row than it says".to_owned()));
        }
        self.rows = rows.into();
        Ok(())
    }

    fn end(&mut self, payload: &[u8], content: [u8; 32]) -> Result<(), ExportError> {
        let broken = |reason: &str| ExportError::file(format!("the trailer {reason}"));
        let trailer = wire::ExportTrailer::decode(payload)
            .map_err(|error| ExportError::file(format!("the trailer: {error}")))?;
        let statement = wire::ExportStatement::decode(trailer.statement.as_slice())
            .map_err(|error| ExportError::file(format!("the trailer: {error}")))?;
        let chain = &self.chain;
        if statement.what != WHAT {
            return Err(broken("is of another kind of file"));
        }
        if statement.cluster_id != self.header.cluster_id
            || statement.first != self.header.first
            || statement.exporter != self.header.exporter
        {
            return Err(broken("is of another export than the header"));
        }
        if statement.rows != chain.rows() || statement.last != chain.next().saturating_sub(1) {
            let (rows, last) = (statement.rows, statement.last);
            let reason = format!("rows are missing: {rows} were exported, up to {last}");
            return Err(ExportError::at(chain.next(), reason));
        }
        if statement.head != chain.head() {
            return Err(broken("says another head than the rows come to"));
        }
        if statement.content != content {
            return Err(broken("does not fit what stands before it"));
        }
        self.input.close()?;
        self.trailer = Some(Trailer {
            statement: Statement {
                cluster_id: statement.cluster_id,
                first: statement.first,
                last: statement.last,
                rows: statement.rows,
                head: chain.head(),
                signed_at_ms: statement.signed_at_ms,
                exporter: statement.exporter,
            },
            signed: trailer.statement,
            signature: trailer.signature,
        });
        Ok(())
    }

    /// The end of the file, once the last row was read.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    fn decompress(&mut self, zstd: &[u8], bytes: u32) -> Result<Vec<u8>, String> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if length > BLOCK_BYTES_MAX {
            return Err(format!("{length} bytes are above the limit of {BLOCK_BYTES_MAX}"));
        }
        let plain =
            self.decompressor.decompress(zstd, length).map_err(|error| error.to_string())?;
        if plain.len() != length {
            return Err("it has another length than it says".to_owned());
        }
        Ok(plain)
    }
}

/// Where the file is broken at its rows, the next one is the place.
fn placed(error: ExportError, due: u64) -> ExportError {
    match error {
        ExportError::File { reason } => ExportError::at(due, reason),
        error => error,
    }
}

fn header_of(message: wire::ExportHeader) -> Result<Header, ExportError> {
    let texts = [&message.cluster_id, &message.exporter];
    if texts.into_iter().chain(&message.ancestors).any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(ExportError::file("the header: an id is too long"));
    }
    let Ok(previous) = message.previous.as_slice().try_into() else {
        return Err(ExportError::file("the header: a hash that is not 32 bytes"));
    };
    if message.first == 0 && previous != BEGINNING {
        return Err(ExportError::file("the header: something stands before the log's beginning"));
    }
    Ok(Header {
        cluster_id: message.cluster_id,
        ancestors: message.ancestors,
        first: message.first,
        made_at_ms: message.made_at_ms,
        exporter: message.exporter,
        previous,
    })
}

fn check_base(header: &Header, base: &wire::ExportBase) -> Result<(), ExportError> {
    let reason = if header.first.checked_sub(1) != Some(base.index) {
        "it is not the state before the first row"
    } else if base.bytes == 0 || base.bytes > BASE_BYTES_MAX {
        "its length is above the limit"
    } else if <[u8; 32]>::try_from(base.digest.as_slice()).map(Digest).is_err() {
        "its digest is not 32 bytes"
    } else {
        return Ok(());
    };
    Err(ExportError::file(format!("the base: {reason}")))
}
