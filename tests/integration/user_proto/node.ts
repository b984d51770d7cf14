// Prints the bytes of a job.
import { ForwardRequest } from "@expertmesh/grpc-js/v1/router";

import { Job, JobsClient } from "./acme/v1/jobs.js";

const job: Job = { name: "a", request: ForwardRequest.create({ layer: 7 }) };
console.log(JobsClient.serviceName && Buffer.from(Job.encode(job).finish()).toString("hex"));
