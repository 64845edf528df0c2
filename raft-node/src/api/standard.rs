//! What every gRPC server is expected to answer: whether it serves, and what it offers. For load balancers and tools that
//! know nothing of Farm; on the TCP port of the API.

use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::problem::Problem;

/// The API, as reflection and health name it.
pub const FARM: &str = "farm.v1.Farm";

/// Health and reflection, and the way to say that this daemon stops.
#[derive(Clone)]
pub struct Standard {
    health: HealthReporter,
}

impl Standard {
    /// Everything serves.
    pub async fn new() -> Self {
        let health = HealthReporter::new();
        for service in ["", FARM] {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        Self { health }
    }

    /// Adds both to what a port answers.
    ///
    /// # Errors
    /// When the description of the API that was built in cannot be read.
    pub fn add_to(&self, routes: &mut RoutesBuilder) -> Result<(), Problem> {
        let unreadable = |e: &dyn std::fmt::Display| {
            let fact = format!("the API cannot describe itself: {e}");
            Problem::new("no_reflection", fact, "farmd --version")
        };
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(farm_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The services between nodes are described in the same place, and are not offered here.
                .with_service_name(FARM)
                .with_service_name("grpc.health.v1.Health")
        };
        routes
            .add_service(HealthServer::new(HealthService::from_health_reporter(self.health.clone())))
            .add_service(described().build_v1().map_err(|e| unreadable(&e))?)
            // Most tools still ask for this one first.
            .add_service(described().build_v1alpha().map_err(|e| unreadable(&e))?);
        Ok(())
    }

    /// From now on nothing serves: whoever balances goes elsewhere.
    pub async fn stopping(&self) {
        for service in ["", FARM] {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::{Channel, Endpoint, Server};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Told;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    use super::*;

    async fn served(standard: &Standard) -> Channel {
        let mut routes = RoutesBuilder::default();
        standard.add_to(&mut routes).expect("the description is sound");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = format!("http://{}", listener.local_addr().expect("its address"));
        let server = Server::builder().add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Endpoint::from_shared(at).expect("an address").connect().await.expect("a connection")
    }

    async fn health(channel: &Channel, service: &str) -> Result<Told, tonic::Code> {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await;
        answer.map(|a| a.into_inner().status()).map_err(|status| status.code())
    }

    async fn reflected(channel: &Channel, asked: MessageRequest) -> ServerReflectionResponse {
        let request =
            ServerReflectionRequest { message_request: Some(asked), ..ServerReflectionRequest::default() };
        let mut client = ServerReflectionClient::new(channel.clone());
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.expect("a stream");
        answers.into_inner().next().await.expect("an answer").expect("that is one")
    }

    #[tokio::test]
    async fn whoever_balances_hears_that_the_daemon_stops() {
        let standard = Standard::new().await;
        let channel = served(&standard).await;
        for service in ["", FARM] {
            assert_eq!(health(&channel, service).await, Ok(Told::Serving));
        }
        assert_eq!(health(&channel, "farm.v1.Other").await, Err(tonic::Code::NotFound));
        standard.stopping().await;
        for service in ["", FARM] {
            assert_eq!(health(&channel, service).await, Ok(Told::NotServing));
        }
    }

    #[tokio::test]
    async fn tools_are_told_what_the_api_offers_and_nothing_that_is_between_nodes() {
        let channel = served(&Standard::new().await).await;
        let listed = reflected(&channel, MessageRequest::ListServices(String::new())).await;
        let Some(MessageResponse::ListServicesResponse(list)) = listed.message_response else {
            panic!("{listed:?}")
        };
        let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
        assert!(names.contains(&FARM) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("Peer")), "{names:?}");
        let described = reflected(&channel, MessageRequest::FileContainingSymbol(FARM.into())).await;
        assert!(
            matches!(described.message_response, Some(MessageResponse::FileDescriptorResponse(_))),
            "{described:?}"
        );
    }
}
