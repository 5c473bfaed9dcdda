//! InitProducerId: an id for an idempotent producer.
//!
//! Without a transactional id every request gets a fresh id at epoch 0, whatever id the producer had: it raises the epoch of
//! its own id by itself (KIP-360). Transactional ids are refused while there are no transactions.

use std::rc::Rc;

use super::shard::Shard;
use crate::types::ErrorCode;
use crate::wire::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

pub(super) async fn answer(shard: &Rc<Shard>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let id = match request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::InvalidTxnState),
        None => shard.first().producer_ids.next(&shard.first().quorum, shard.node()).await,
    };
    let response = InitProducerIdResponse::default();
    match id {
        Ok(id) => response.with_producer_id(ProducerId(id.value())).with_producer_epoch(0),
        Err(code) => response.with_error_code(code.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1),
    }
}
