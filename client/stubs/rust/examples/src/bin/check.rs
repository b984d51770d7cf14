//! Checks what tonic can do with a router: one line for each of the columns.
//!
//!     check ROUTER GOLDEN_DIR
use std::{env, error::Error, fs, path::Path, process::ExitCode, time::Duration};

use expertmesh::v1::{
    control_client::ControlClient, router_client::RouterClient, DescribeModelRequest, Dtype,
    ForwardRequest, ForwardResponse, Tensor, WatchTopologyRequest,
};
use expertmesh_examples::{unpack_f32, worst_error};
use tokio_stream::{iter, StreamExt};
use tonic::{
    transport::{Channel, Endpoint},
    Code, Request,
};
use tonic_health::pb::{
    health_check_response::ServingStatus, health_client::HealthClient, HealthCheckRequest,
};
use tonic_reflection::pb::v1::{
    server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse, ServerReflectionRequest,
};
use tonic_types::{pb, ErrorDetails, RpcStatusExt, StatusExt};

const TIMEOUT: Duration = Duration::from_secs(60);
const BIG_BYTES: usize = 60_000_000;
const COLUMNS: [&str; 8] =
    ["unary", "stream", "watch", "health", "reflection", "big", "errors", "bits"];

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A request with a deadline.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

fn require(condition: bool, said: String) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(said.into())
    }
}

/// Fails unless an error says that the layer is wrong.
fn require_names_layer(code: Code, details: &ErrorDetails) -> Outcome {
    let reason = details.error_info().map_or("", |info| &info.reason);
    let fields: Vec<&str> = details
        .bad_request()
        .map_or(&[][..], |request| &request.field_violations)
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    require(
        code == Code::InvalidArgument && reason == "INVALID_FIELD" && fields == ["layer"],
        format!("code {code:?}, reason {reason}, fields {fields:?}"),
    )
}

/// What the columns share.
struct Checker {
    channel: Channel,
    router: RouterClient<Channel>,
    hidden_states: Vec<u8>,
    expected: Vec<f32>,
    layer: u32,
    d_model: usize,
}

impl Checker {
    async fn new(address: &str, golden: &Path) -> Outcome<Self> {
        let endpoint = Endpoint::new(format!("http://{address}"))?.connect_timeout(TIMEOUT);
        let channel = endpoint.connect().await?;
        Ok(Checker {
            router: RouterClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            channel,
            hidden_states: fs::read(golden.join("hidden_states.f32"))?,
            expected: unpack_f32(&fs::read(golden.join("output.f32"))?),
            layer: 0,
            d_model: 0,
        })
    }

    fn request(&self, request_id: u64, layer: u32, data: Vec<u8>) -> ForwardRequest {
        let tokens = data.len() / 4 / self.d_model;
        ForwardRequest {
            request_id,
            layer,
            hidden_states: Some(Tensor {
                dtype: Dtype::F32.into(),
                shape: vec![tokens as u64, self.d_model as u64],
                data: data.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn require_golden(&self, data: &[u8]) -> Outcome {
        let actual = unpack_f32(data);
        require(actual.len() == self.expected.len(), format!("{} values", actual.len()))?;
        let (token, error) = worst_error(&actual, &self.expected, self.d_model);
        require(error <= 1e-5, format!("error {error:.2e} at token {token}"))
    }

    /// Sends requests on one stream and returns all answers.
    async fn exchange(&mut self, requests: Vec<ForwardRequest>) -> Outcome<Vec<ForwardResponse>> {
        let stream = self.router.forward_stream(timed(iter(requests))).await?.into_inner();
        Ok(stream.collect::<Result<_, _>>().await?)
    }

    async fn unary(&mut self) -> Outcome {
        let model = self.router.describe_model(timed(DescribeModelRequest {})).await?.into_inner();
        self.layer = model.layers.first().ok_or("the model has no layer")?.layer;
        self.d_model = model.d_model as usize;
        Ok(())
    }

    async fn stream(&mut self) -> Outcome {
        let data = &self.hidden_states;
        let requests = (1..4).map(|id| self.request(id, self.layer, data.clone())).collect();
        let answers = self.exchange(requests).await?;
        for answer in &answers {
            self.require_golden(&answer.output.clone().unwrap_or_default().data)?;
        }
        let mut ids: Vec<u64> = answers.iter().map(|answer| answer.request_id).collect();
        ids.sort_unstable();
        require(ids == [1, 2, 3], format!("answers to {ids:?}"))
    }

    async fn watch(&mut self) -> Outcome {
        let mut control = ControlClient::new(self.channel.clone());
        let request = timed(WatchTopologyRequest::default());
        let mut stream = control.watch_topology(request).await?.into_inner();
        let first = stream.message().await?.ok_or("the stream ended")?;
        let topology = first.topology.unwrap_or_default();
        require(topology.ready && !topology.nodes.is_empty(), format!("{topology:?}"))
    }

    async fn health(&mut self) -> Outcome {
        let mut health = HealthClient::new(self.channel.clone());
        for service in ["", "ready", "expertmesh.v1.Control"] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let status = health.check(timed(request)).await?.into_inner().status();
            let said = format!("{service:?} is {}", status.as_str_name());
            require(status == ServingStatus::Serving, said)?;
        }
        Ok(())
    }

    async fn reflection(&mut self) -> Outcome {
        let list = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..Default::default()
        };
        let mut reflection = ServerReflectionClient::new(self.channel.clone());
        let request = timed(iter([list]));
        let mut stream = reflection.server_reflection_info(request).await?.into_inner();
        let answer = stream.message().await?.ok_or("the stream ended")?;
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            return Err(format!("{answer:?}").into());
        };
        let found = list.service.iter().any(|service| service.name == "expertmesh.v1.Router");
        require(found, format!("no Router in {list:?}"))
    }

    /// A message of 60 MB on the way there and back: the golden tokens, over and over.
    async fn big(&mut self) -> Outcome {
        let one = self.hidden_states.len();
        let data = self.hidden_states.repeat(BIG_BYTES / one);
        let size = data.len();
        let request = timed(self.request(0, self.layer, data));
        let answer = self.router.forward(request).await?.into_inner();
        let output = answer.output.unwrap_or_default().data;
        require(output.len() == size, format!("{} bytes, not {size}", output.len()))?;
        self.require_golden(&output[..one])?;
        self.require_golden(&output[size - one..])
    }

    async fn errors(&mut self) -> Outcome {
        let wrong = self.request(1, self.layer + 1000, vec![0; 4 * self.d_model]);
        match self.router.forward(timed(wrong.clone())).await {
            Ok(_) => return Err("unary: no error".into()),
            Err(status) => require_names_layer(status.code(), &status.get_error_details())?,
        }
        let answers = self.exchange(vec![wrong]).await?;
        let inside = answers[0].status.clone().unwrap_or_default();
        let (code, message, details) = (inside.code, inside.message, inside.details);
        let status = pb::Status { code, message, details };
        require_names_layer(Code::from_i32(code), &status.get_error_details())
    }

    async fn bits(&mut self) -> Outcome {
        let request = timed(self.request(0, self.layer, self.hidden_states.clone()));
        let answer = self.router.forward(request).await?.into_inner();
        self.require_golden(&answer.output.unwrap_or_default().data)
    }

    async fn run(&mut self, column: &str) -> Outcome {
        match column {
            "unary" => self.unary().await,
            "stream" => self.stream().await,
            "watch" => self.watch().await,
            "health" => self.health().await,
            "reflection" => self.reflection().await,
            "big" => self.big().await,
            "errors" => self.errors().await,
            _ => self.bits().await,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, golden] = arguments.as_slice() else {
        eprintln!("usage: check ROUTER GOLDEN_DIR");
        return Ok(ExitCode::from(2));
    };
    let mut checker = Checker::new(address, Path::new(golden)).await?;
    let mut code = ExitCode::SUCCESS;
    for column in COLUMNS {
        match checker.run(column).await {
            Ok(()) => println!("{column} yes"),
            Err(error) => {
                let why = error.to_string();
                println!("{column} no: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
