//! The client API: what `farmctl` and other clients call. Thin: each call parses, asks the member, renders.
//!
//! The Unix socket may change things (its file mode is the permission); TCP may only look.

mod applog;
mod changes;
mod collect;
pub(crate) mod counters;
mod doctor;
pub(crate) mod events;
mod explain;
mod levels;
pub(crate) mod modules;
mod refuse;
pub mod standard;
pub(crate) mod status;
mod survival;
mod tiebreak;

use std::pin::Pin;
use std::sync::Arc;

use farm_proto::v1;
use farm_proto::v1::farm_server::Farm;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

pub use refuse::{CODE, CURE, no_leader, refused, status};

use crate::daemon::Daemon;
use crate::member::Member;
use crate::notify;

/// Whether a listener may change things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The Unix socket.
    Full,
    /// TCP: no secret protects it yet.
    ReadOnly,
}

/// The service behind one listener.
#[derive(Clone)]
pub struct Api {
    daemon: Arc<Daemon>,
    member: watch::Receiver<Option<Arc<Member>>>,
    access: Access,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    /// Serves `daemon`.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, access: Access) -> Self {
        Self { member: daemon.member(), daemon, access }
    }

    fn member(&self) -> Result<Arc<Member>, Status> {
        self.member.borrow().clone().ok_or_else(refuse::not_member)
    }

    fn may_change(&self) -> Result<(), Status> {
        match self.access {
            Access::Full => Ok(()),
            Access::ReadOnly => Err(refuse::invalid(
                "read_only",
                "this address only shows things; changes go through the Unix socket of a node",
                "farmctl --socket /run/farm/farmd.sock cluster status",
            )),
        }
    }

    fn changing_member(&self) -> Result<Arc<Member>, Status> {
        self.may_change()?;
        self.member()
    }
}

#[tonic::async_trait]
impl Farm for Api {
    type CollectStream = Streamed<v1::CollectedPart>;
    type EventsStream = Streamed<v1::Event>;
    type ModuleApplogStream = Streamed<v1::ModuleLogLines>;
    type WatchStream = Streamed<v1::StatusResponse>;

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::InitResponse>, Status> {
        self.may_change()?;
        let answer = self.daemon.found(request.into_inner()).await;
        answer.map(Response::new).map_err(|p| status(tonic::Code::FailedPrecondition, &p))
    }

    async fn join(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        self.may_change()?;
        let answer = self.daemon.join(request.into_inner()).await;
        answer.map(Response::new).map_err(|p| status(tonic::Code::FailedPrecondition, &p))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::Done>, Status> {
        changes::leave(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status::now(&self.daemon).await))
    }

    async fn node_set(&self, request: Request<v1::NodeSetRequest>) -> Result<Response<v1::Done>, Status> {
        changes::node_set(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn tie_break_set(
        &self,
        request: Request<v1::TieBreakRequest>,
    ) -> Result<Response<v1::TieBreakResponse>, Status> {
        tiebreak::set(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn tie_break_rehearse(
        &self,
        _: Request<v1::TieBreakRehearseRequest>,
    ) -> Result<Response<v1::TieBreakResponse>, Status> {
        tiebreak::rehearse(&*self.changing_member()?).await.map(Response::new)
    }

    async fn cluster_check(
        &self,
        _: Request<v1::ClusterCheckRequest>,
    ) -> Result<Response<v1::ClusterCheckResponse>, Status> {
        Ok(Response::new(survival::check(&*self.member()?).await))
    }

    async fn service_add(
        &self,
        request: Request<v1::ServiceAddRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::service_add(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn service_remove(
        &self,
        request: Request<v1::ServiceRemoveRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::service_remove(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_weight(
        &self,
        request: Request<v1::ModuleWeightRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::module_weight(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn cluster_finalize(
        &self,
        _: Request<v1::ClusterFinalizeRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        levels::finalize(&*self.changing_member()?).await.map(Response::new)
    }

    async fn cluster_rename(
        &self,
        request: Request<v1::ClusterRenameRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        levels::rename(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_set(&self, request: Request<v1::ModuleSetRequest>) -> Result<Response<v1::Done>, Status> {
        changes::module_set(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_apply(
        &self,
        request: Request<v1::ModuleApplyRequest>,
    ) -> Result<Response<v1::ModuleApplyResponse>, Status> {
        modules::apply(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_rollback(
        &self,
        request: Request<v1::ModuleRollbackRequest>,
    ) -> Result<Response<v1::ModuleApplyResponse>, Status> {
        modules::rollback(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_export(
        &self,
        request: Request<v1::ModuleExportRequest>,
    ) -> Result<Response<v1::ModuleFiles>, Status> {
        // Scripts and their environment may hold what not everybody is to read.
        modules::export(&*self.changing_member()?, &request.into_inner()).map(Response::new)
    }

    async fn module_template(
        &self,
        request: Request<v1::ModuleTemplateRequest>,
    ) -> Result<Response<v1::ModuleFiles>, Status> {
        modules::template(&request.into_inner()).map(Response::new)
    }

    async fn module_remove(
        &self,
        request: Request<v1::ModuleRemoveRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        modules::remove(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_control(
        &self,
        request: Request<v1::ModuleControlRequest>,
    ) -> Result<Response<v1::ModuleControlResponse>, Status> {
        modules::control(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn module_applog(
        &self,
        request: Request<v1::ModuleApplogRequest>,
    ) -> Result<Response<Self::ModuleApplogStream>, Status> {
        // Applications may write what not everybody is to read.
        applog::stream(self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn script(
        &self,
        request: Request<v1::ScriptRequest>,
    ) -> Result<Response<v1::ScriptResponse>, Status> {
        modules::script(&*self.changing_member()?, &request.into_inner()).await.map(Response::new)
    }

    async fn node_restart(
        &self,
        request: Request<v1::NodeRestartRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::node_restart(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn maintenance_on(
        &self,
        request: Request<v1::MaintenanceOnRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::maintenance_on(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn maintenance_off(
        &self,
        request: Request<v1::MaintenanceOffRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::maintenance_off(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn profile_set(
        &self,
        request: Request<v1::ProfileSetRequest>,
    ) -> Result<Response<v1::Done>, Status> {
        changes::profile_set(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        explain::explain(&*self.member()?, request.into_inner()).await.map(Response::new)
    }

    async fn counters(
        &self,
        _: Request<v1::CountersRequest>,
    ) -> Result<Response<v1::CountersResponse>, Status> {
        counters::counters(&*self.member()?).map(Response::new)
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        events::stream(self.member()?, request.into_inner()).await.map(Response::new)
    }

    async fn why(&self, request: Request<v1::WhyRequest>) -> Result<Response<v1::WhyResponse>, Status> {
        events::why(&*self.member()?, request.into_inner()).await.map(Response::new)
    }

    async fn collect(
        &self,
        request: Request<v1::CollectRequest>,
    ) -> Result<Response<Self::CollectStream>, Status> {
        collect::collect(self.changing_member()?, request.into_inner()).map(Response::new)
    }

    async fn notify_test(
        &self,
        _: Request<v1::NotifyTestRequest>,
    ) -> Result<Response<v1::NotifyTestResponse>, Status> {
        Ok(Response::new(notify::test(&*self.changing_member()?).await))
    }

    async fn drill(&self, request: Request<v1::DrillRequest>) -> Result<Response<v1::DrillResponse>, Status> {
        let drill = self.changing_member()?.drill(request.into_inner()).await;
        drill.map(Response::new).map_err(|p| status(tonic::Code::FailedPrecondition, &p))
    }

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorResponse>, Status> {
        // It keeps the machines busy for a moment.
        doctor::doctor(&*self.changing_member()?, request.into_inner()).await.map(Response::new)
    }

    async fn watch(&self, _: Request<v1::StatusRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(status::stream(self.member()?)))
    }
}
