//! PROTO_PATH has this contract and ours, separated by a colon.
fn main() {
    let path = std::env::var("PROTO_PATH").unwrap();
    let jobs = protox::compile(["acme/v1/jobs.proto"], path.split(':')).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".expertmesh.v1", "::expertmesh::v1")
        .compile_fds(jobs)
        .unwrap();
}
