//! DescribeCluster: the brokers, the controller, the cluster's id.
//!
//! This is an endpoint of brokers; who asks for the controllers' is told so. A broker's address is that of the listener by which
//! the client came in. Every registered broker serves: none is fenced, so that asking for fenced ones too changes nothing.
//!
//! Source: KIP-700, KIP-919 (kinds of endpoints), KIP-1073 (fenced brokers).

use super::authorized_operations;
use super::listeners::{Endpoint, ListenerId};
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::types::ErrorCode;
use crate::wire::control::OPERATIONS_NOT_ASKED;
use crate::wire::messages::{
    BrokerId, DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, StrBytes,
};

/// The kinds of endpoints.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn answer(shard: &Shard, listener: ListenerId, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    if let Err((code, message)) = check_endpoint(request.endpoint_type) {
        let response = DescribeClusterResponse::default().with_error_code(code.code());
        return response.with_error_message(Some(StrBytes::from_string(message)));
    }
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(StrBytes::from_string(shard.cluster().to_string()))
        .with_controller_id(BrokerId(shard.node().value()))
        .with_brokers(brokers(shard, &shard.image(), listener))
        .with_cluster_authorized_operations(if asked { authorized_operations::CLUSTER } else { OPERATIONS_NOT_ASKED })
}

fn check_endpoint(kind: i8) -> Result<(), (ErrorCode, String)> {
    match kind {
        BROKERS => Ok(()),
        CONTROLLERS => {
            let message = "this is an endpoint of brokers, and one of controllers is asked for".to_owned();
            Err((ErrorCode::MismatchedEndpointType, message))
        }
        other => Err((ErrorCode::UnsupportedEndpointType, format!("there is no kind of endpoint {other}"))),
    }
}

fn brokers(shard: &Shard, image: &ClusterImage, listener: ListenerId) -> Vec<DescribeClusterBroker> {
    let registered = image.brokers().filter_map(|broker| {
        let Endpoint { host, port } = shard.endpoint(image, broker.broker, listener)?;
        let described = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.broker.value()))
            .with_host(StrBytes::from_string(host))
            .with_port(i32::from(port));
        Some(described)
    });
    registered.collect()
}
