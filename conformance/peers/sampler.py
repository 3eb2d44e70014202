"""What OpenTelemetry's Python SDK decides: lines of "ratio trace-id" come in, a line of 1 or 0 goes out for each."""

import sys

from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

samplers = {}
for line in sys.stdin:
    ratio, trace_id = line.split()
    sampler = samplers.setdefault(ratio, TraceIdRatioBased(float(ratio)))
    result = sampler.should_sample(None, int(trace_id, 16), "command")
    print(int(result.decision == Decision.RECORD_AND_SAMPLE))
