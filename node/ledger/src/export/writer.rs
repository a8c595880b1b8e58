//! Writing an export, row by row.

use std::io::Write;

use dovetail_proto::v1 as wire;
use dovetail_routing::snapshot::Digest;
use prost::Message as _;
use zstd::bulk::Compressor;

use super::frame::{Hashed, Kind, MAGIC};
use super::{BASE_BYTES_MAX, BLOCK_BYTES, BLOCK_BYTES_MAX, ExportError, FORMAT, Header, WHAT};
use crate::chain::{Chain, LedgerHash};

/// zstd's own default: a tenth of the size at hundreds of MB/s.
const LEVEL: i32 = 3;

/// Writes an export to `W`. Dropped before [`Exporter::finish`], it leaves a file that
/// every reader refuses.
pub struct Exporter<W> {
    out: Hashed<W>,
    chain: Chain,
    first: u64,
    exporter: String,
    compressor: Compressor<'static>,
    block: wire::ExportRows,
    block_bytes: usize,
}

impl<W> std::fmt::Debug for Exporter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl<W: Write> Exporter<W> {
    /// Writes the header; `base` is the state before the first row, as
    /// [`dovetail_routing::state::State::encode`] gives it, with its digest.
    pub fn begin(
        out: W,
        header: &Header,
        base: Option<(&[u8], Digest)>,
    ) -> Result<Self, ExportError> {
        let mut exporter = Self {
            out: Hashed::new(out),
            chain: Chain::new(&*header.cluster_id, header.first, header.previous),
            first: header.first,
            exporter: header.exporter.clone(),
            compressor: Compressor::new(LEVEL).map_err(ExportError::Write)?,
            block: wire::ExportRows::default(),
            block_bytes: 0,
        };
        let message = wire::ExportHeader {
            format: FORMAT,
            cluster_id: header.cluster_id.clone(),
            ancestors: header.ancestors.clone(),
            first: header.first,
            made_at_ms: header.made_at_ms,
            exporter: header.exporter.clone(),
            previous: header.previous.to_vec(),
            base: base.map(|(state, digest)| wire::ExportBase {
                index: header.first.saturating_sub(1),
                digest: digest.0.to_vec(),
                bytes: state.len() as u64,
            }),
        };
        exporter.out.put(MAGIC)?;
        exporter.out.put_frame(Kind::Header, &message.encode_to_vec())?;
        if let Some((state, _)) = base {
            exporter.state(state)?;
        }
        Ok(exporter)
    }

    fn state(&mut self, state: &[u8]) -> Result<(), ExportError> {
        if state.len() as u64 > BASE_BYTES_MAX {
            let reason = format!("a state of {} bytes is above {BASE_BYTES_MAX}", state.len());
            return Err(ExportError::file(reason));
        }
        for piece in state.chunks(BLOCK_BYTES) {
            let (bytes, zstd) = self.compress(piece)?;
            let frame = wire::ExportState { bytes, zstd }.encode_to_vec();
            self.out.put_frame(Kind::State, &frame)?;
        }
        Ok(())
    }

    /// Adds the next row. One that does not follow on the last is refused.
    pub fn row(&mut self, row: wire::LedgerRow) -> Result<(), ExportError> {
        self.chain.follow(&row)?;
        self.block_bytes += row.encoded_len();
        self.block.rows.push(row);
        if self.block_bytes >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), ExportError> {
        let Some(first) = self.block.rows.first().map(|row| row.index) else { return Ok(()) };
        let block = std::mem::take(&mut self.block);
        self.block_bytes = 0;
        let plain = block.encode_to_vec();
        if plain.len() > BLOCK_BYTES_MAX {
            return Err(ExportError::at(first, "the entry is too long to be exported"));
        }
        let rows = u32::try_from(block.rows.len())
            .map_err(|_| ExportError::at(first, "too many rows in one block"))?;
        let (bytes, zstd) = self.compress(&plain)?;
        let frame = wire::ExportBlock { first, rows, bytes, zstd }.encode_to_vec();
        self.out.put_frame(Kind::Block, &frame)
    }

    fn compress(&mut self, plain: &[u8]) -> Result<(u32, Vec<u8>), ExportError> {
        let zstd = self.compressor.compress(plain).map_err(ExportError::Write)?;
        let bytes = u32::try_from(plain.len())
            .map_err(|_| ExportError::file("a piece above 4 GiB cannot be compressed"))?;
        Ok((bytes, zstd))
    }

    /// The place after the last row.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What was written so far goes through this; a stream empties it from time to time.
    pub fn get_mut(&mut self) -> &mut W {
        self.out.get_mut()
    }

    /// Writes the rest and the trailer. `sign` gets the statement's bytes, and gives no
    /// signature where there is no key.
    pub fn finish(
        mut self,
        signed_at_ms: u64,
        sign: impl FnOnce(&[u8]) -> Result<Option<wire::ExportSignature>, String>,
    ) -> Result<(W, LedgerHash), ExportError> {
        self.close_block()?;
        let head = self.chain.head();
        let statement = wire::ExportStatement {
            what: WHAT.to_owned(),
            cluster_id: self.chain.cluster_id().to_owned(),
            first: self.first,
            last: self.chain.next().saturating_sub(1),
            rows: self.chain.rows(),
            head: head.to_vec(),
            content: self.out.hash().to_vec(),
            signed_at_ms,
            exporter: self.exporter.clone(),
        }
        .encode_to_vec();
        let signature = sign(&statement).map_err(|reason| ExportError::Sign { reason })?;
        let trailer = wire::ExportTrailer { statement, signature }.encode_to_vec();
        self.out.put_frame(Kind::Trailer, &trailer)?;
        let hash = self.out.hash();
        self.out.put(&hash)?;
        let mut out = self.out.into_inner();
        out.flush().map_err(ExportError::Write)?;
        Ok((out, head))
    }
}
