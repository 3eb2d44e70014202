// The program of the client tests: sends commands within spans through an instrumented go-redis, prints what it did.
//
//	traced-client REDIS_PORT OTLP_ENDPOINT KEY REQUESTS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	ferritetracing "github.com/ferrite-rs/ferrite/integration/clients/go"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func ids(span trace.Span) []string {
	of := span.SpanContext()
	return []string{of.TraceID().String(), of.SpanID().String()}
}

// Baggage of which the server is to show the first member.
func carrying(ctx context.Context, key string) context.Context {
	told, err := baggage.NewMemberRaw("request.key", key)
	must(err)
	untold, err := baggage.NewMemberRaw("secret", "x")
	must(err)
	both, err := baggage.New(told, untold)
	must(err)
	return baggage.ContextWithBaggage(ctx, both)
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: traced-client REDIS_PORT OTLP_ENDPOINT KEY REQUESTS")
	}
	port, endpoint, key := os.Args[1], os.Args[2], os.Args[3]
	requests, err := strconv.Atoi(os.Args[4])
	must(err)

	background := context.Background()
	exporter, err := otlptracegrpc.New(background, otlptracegrpc.WithEndpointURL(endpoint))
	must(err)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "go-client"))),
	)
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	tracer := provider.Tracer("test")

	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port, PoolSize: 16})
	must(redisotel.InstrumentTracing(client))
	must(ferritetracing.Instrument(client))

	ctx, request := tracer.Start(carrying(background, key), "handle-request")
	must(client.Set(ctx, key, "value", 0).Err())
	value, err := client.Get(ctx, key).Result()
	must(err)
	pipeline := client.Pipeline()
	appended, length := pipeline.Append(ctx, key, "-more"), pipeline.StrLen(ctx, key)
	_, err = pipeline.Exec(ctx)
	must(err)
	transaction := client.TxPipeline()
	first := transaction.GetRange(ctx, key, 0, 0)
	_, err = transaction.Exec(ctx)
	must(err)
	request.End()

	// Outside of it.
	must(client.Exists(background, key).Err())
	hello, err := client.Do(background, "HELLO").Result()
	must(err)

	done := make([][]string, requests)
	var all sync.WaitGroup
	for number := range done {
		all.Add(1)
		go func() {
			defer all.Done()
			name := fmt.Sprintf("%s:%d", key, number)
			ctx, span := tracer.Start(carrying(background, name), "request", trace.WithNewRoot())
			must(client.Set(ctx, name, number, 0).Err())
			span.End()
			done[number] = append(ids(span), name)
		}()
	}
	all.Wait()
	must(provider.Shutdown(background))

	_, advertised := hello.(map[interface{}]interface{})["trace-context"]
	must(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"advertised": advertised,
		"request":    ids(request),
		"value":      value,
		"replies":    []interface{}{appended.Val(), length.Val(), first.Val()},
		"requests":   done,
	}))
}
