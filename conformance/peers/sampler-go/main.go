// Says what OpenTelemetry's Go SDK decides: lines of "ratio trace-id" come in, a line of 1 or 0 goes out for each.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	samplers := map[float64]sdk.Sampler{}
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		var ratio float64
		var text string
		if _, err := fmt.Sscan(lines.Text(), &ratio, &text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		id, err := trace.TraceIDFromHex(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if samplers[ratio] == nil {
			samplers[ratio] = sdk.TraceIDRatioBased(ratio)
		}
		result := samplers[ratio].ShouldSample(sdk.SamplingParameters{ParentContext: context.Background(), TraceID: id})
		if result.Decision == sdk.RecordAndSample {
			fmt.Fprintln(out, 1)
		} else {
			fmt.Fprintln(out, 0)
		}
	}
}
