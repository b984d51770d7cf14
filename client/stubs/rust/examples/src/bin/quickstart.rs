//! The smallest useful program: asks a router for the output of one layer.
use std::{env, error::Error, time::Duration};

use expertmesh::v1::{router_client::RouterClient, Dtype, ForwardRequest, Tensor};
use tonic_types::StatusExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("usage: quickstart ROUTER")?;
    let mut router = RouterClient::connect(format!("http://{address}"))
        .await?
        .max_decoding_message_size(1 << 30); // tonic's own limit is 4 MiB.
    let data = vec![0; 4 * 32].into();
    let hidden_states =
        Tensor { dtype: Dtype::F32 as i32, shape: vec![1, 32], data, ..Default::default() };
    let mut request = tonic::Request::new(ForwardRequest {
        layer: 1,
        hidden_states: Some(hidden_states),
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(30));
    let answer =
        router.forward(request).await.map_err(|status| match status.get_details_error_info() {
            Some(info) if info.reason == "EXPERTS_MISSING" => {
                format!("no node holds experts {}: try later", info.metadata["experts"])
            }
            _ => status.to_string(),
        })?;
    let output = answer.into_inner().output.ok_or("no output")?;
    println!("{:?} {} bytes", output.shape, output.data.len());
    Ok(())
}
