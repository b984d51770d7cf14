//! Prints the bytes of a job.
use expertmesh::v1::ForwardRequest;
use prost::Message;

mod acme {
    tonic::include_proto!("acme.v1");
}

fn main() {
    let request = ForwardRequest { layer: 7, ..Default::default() };
    let job = acme::Job { name: "a".to_owned(), request: Some(request) };
    let _ = acme::jobs_client::JobsClient::<tonic::transport::Channel>::new;
    for byte in job.encode_to_vec() {
        print!("{byte:02x}");
    }
}
