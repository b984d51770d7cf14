// Checks that generated Go code writes and reads the bytes of the contract.
//
//	wire MESSAGES      (tests/golden/wire/messages.txt, which is described in make_wire_golden.py)
package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	_ "expertmesh.dev/expertmesh/v1" // Registers the messages.

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// check says what is wrong with a line.
func check(line string) error {
	columns := strings.SplitN(line, " ", 4)
	name, direction, content := columns[0], columns[1], columns[3]
	golden, err := hex.DecodeString(strings.TrimPrefix(columns[2], "-"))
	if err != nil {
		return err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("expertmesh.v1." + name))
	if err != nil {
		return err
	}
	wanted := kind.New().Interface()
	if err := protojson.Unmarshal([]byte(content), wanted); err != nil {
		return err
	}
	if direction == "both" {
		written, err := proto.MarshalOptions{Deterministic: true}.Marshal(wanted)
		if err != nil {
			return err
		}
		if !bytes.Equal(written, golden) {
			return fmt.Errorf("%s: wrote %x, expected %x", name, written, golden)
		}
	}
	read := kind.New().Interface()
	// What a later version added is no difference.
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(golden, read); err != nil {
		return err
	}
	if !proto.Equal(read, wanted) {
		return fmt.Errorf("%s: read %v from %x, expected %s", name, read, golden, content)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: wire MESSAGES")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	wrong := 0
	for _, line := range lines {
		if err := check(line); err != nil {
			fmt.Println(err)
			wrong++
		}
	}
	fmt.Printf("%d messages, %d wrong\n", len(lines), wrong)
	if wrong > 0 {
		os.Exit(1)
	}
}
