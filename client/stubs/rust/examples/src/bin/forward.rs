//! Calls a router through generated Rust stubs, and compares its answers with golden ones.
//!
//!     forward ROUTER GOLDEN_DIR
use std::{env, error::Error, path::Path, process::ExitCode, time::Duration};

use expertmesh::v1::{
    router_client::RouterClient, DescribeModelRequest, Dtype, ForwardRequest, Tensor,
};
use expertmesh_examples::{pack_bf16, pack_f32, read_f32, unpack_bf16, unpack_f32, worst_error};
use tonic::{
    transport::{Channel, Endpoint},
    Request,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A request with a deadline.
fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// Sends values as one type and returns the answer, asked for as another.
async fn forward(
    router: &mut RouterClient<Channel>,
    layer: u32,
    values: &[f32],
    d_model: usize,
    sent: Dtype,
    answered: Dtype,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let data = if sent == Dtype::F32 { pack_f32(values) } else { pack_bf16(values) };
    let hidden_states = Tensor {
        dtype: sent.into(),
        shape: vec![(values.len() / d_model) as u64, d_model as u64],
        data: data.into(),
        ..Default::default()
    };
    let request = ForwardRequest {
        layer,
        output_dtype: answered.into(),
        hidden_states: Some(hidden_states),
        ..Default::default()
    };
    let answer = router.forward(timed(request)).await?.into_inner();
    let output = answer.output.ok_or("the answer has no output")?;
    Ok(if output.dtype() == Dtype::F32 {
        unpack_f32(&output.data)
    } else {
        unpack_bf16(&output.data)
    })
}

/// True when every answer is within its tolerance.
async fn run(address: &str, golden: &Path) -> Result<bool, Box<dyn Error>> {
    let endpoint = Endpoint::new(format!("http://{address}"))?.connect_timeout(TIMEOUT);
    // Tensors are larger than tonic's default limit of 4 MiB for a message received.
    let mut router =
        RouterClient::new(endpoint.connect().await?).max_decoding_message_size(usize::MAX);
    let model = router.describe_model(timed(DescribeModelRequest {})).await?.into_inner();
    let layer = model.layers.first().ok_or("the model has no layer")?.layer;
    let (family, d_model) = (model.family, model.d_model as usize);
    println!("{address}: {family}, d_model {d_model}, first MoE layer {layer}");

    let hidden_states = read_f32(golden, "hidden_states.f32")?;
    let mut good = true;
    for (sent, answered, name, tolerance) in [
        (Dtype::F32, Dtype::F32, "output.f32", 1e-5),
        (Dtype::Bf16, Dtype::F32, "output_of_bf16_input.f32", 1e-5),
        (Dtype::Bf16, Dtype::Bf16, "output_of_bf16_input.f32", 1e-2),
    ] {
        let actual = forward(&mut router, layer, &hidden_states, d_model, sent, answered).await?;
        let expected = read_f32(golden, name)?;
        if actual.len() != expected.len() {
            let (has, wants) = (actual.len(), expected.len());
            return Err(format!(
                "the answer has {has} values, {name} has {wants}: \
                 does the router serve the golden checkpoint?"
            )
            .into());
        }
        let (token, error) = worst_error(&actual, &expected, d_model);
        let within = error <= tolerance;
        println!(
            "{} to {}: error {error:.2e} at token {token}, at most {tolerance:e}: {}",
            sent.as_str_name(),
            answered.as_str_name(),
            if within { "ok" } else { "TOO LARGE" }
        );
        good &= within;
    }
    Ok(good)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, golden] = arguments.as_slice() else {
        eprintln!("usage: forward ROUTER GOLDEN_DIR");
        return ExitCode::from(2);
    };
    match run(address, Path::new(golden)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
