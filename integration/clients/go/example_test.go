package ferritetracing_test

import (
	"context"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	ferritetracing "github.com/ferrite-rs/ferrite/integration/clients/go"
)

func ExampleInstrument() {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	if err := redisotel.InstrumentTracing(client); err != nil {
		panic(err)
	}
	// Behind redisotel: then a command carries the span that redisotel made for it.
	if err := ferritetracing.Instrument(client); err != nil {
		panic(err)
	}
	client.Get(context.Background(), "user:1")
}
