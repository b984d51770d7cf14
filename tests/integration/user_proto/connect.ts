// Prints the bytes of a job.
import { create, toBinary } from "@bufbuild/protobuf";
import { ForwardRequestSchema } from "@expertmesh/connect/v1/router";

import { Jobs, JobSchema } from "./acme/v1/jobs_pb.js";

const request = create(ForwardRequestSchema, { layer: 7 });
const job = create(Jobs.method.run.input, { name: "a", request });
console.log(Buffer.from(toBinary(JobSchema, job)).toString("hex"));
