"""Prints the bytes of a job."""

from acme.v1 import jobs_pb2, jobs_pb2_grpc
from expertmesh.v1 import router_pb2

assert jobs_pb2_grpc.JobsStub
job = jobs_pb2.Job(name="a", request=router_pb2.ForwardRequest(layer=7))
print(job.SerializeToString().hex())
