// Prints the bytes of a job.
package main

import (
	"fmt"

	acme "acme.test/jobs/v1"

	em "expertmesh.dev/expertmesh/v1"

	"google.golang.org/protobuf/proto"
)

func main() {
	data, err := proto.Marshal(&acme.Job{Name: "a", Request: &em.ForwardRequest{Layer: 7}})
	fmt.Printf("%x", data)
	if err != nil {
		panic(err)
	}
}
