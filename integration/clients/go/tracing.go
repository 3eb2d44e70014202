// Package ferritetracing joins go-redis's commands to the caller's OpenTelemetry trace, if the server understands it.
//
//	redisotel.InstrumentTracing(client)
//	ferritetracing.Instrument(client) // behind it: then a command carries the span that redisotel made for it
//
// Ferrite says in HELLO's reply (trace-context) that it takes contexts. A server that does not is sent plain commands. go-redis
// lets a hook change a command's arguments and nothing before them, so the context and the baggage travel in OTEL.TRACE.
package ferritetracing

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
)

// Instrument makes a client's commands carry the context with which they are called, as the global propagator
// (otel.SetTextMapPropagator) writes it.
func Instrument(client redis.UniversalClient) error {
	switch client := client.(type) {
	case *redis.Client:
		client.AddHook(&hook{})
	case *redis.ClusterClient:
		client.OnNewNode(func(node *redis.Client) { node.AddHook(&hook{}) })
	case *redis.Ring:
		client.OnNewNode(func(node *redis.Client) { node.AddHook(&hook{}) })
	default:
		return fmt.Errorf("ferritetracing: %T not supported", client)
	}
	return nil
}

// hook belongs to one server.
type hook struct {
	// What the latest connection was told.
	takesContext atomic.Bool
}

func (h *hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		// The type that go-redis's own set-up of a connection has.
		if hello, ok := cmd.(*redis.MapStringInterfaceCmd); ok && cmd.Name() == "hello" {
			err := next(ctx, cmd)
			_, takes := hello.Val()["trace-context"]
			h.takesContext.Store(err == nil && takes)
			return err
		}
		return next(ctx, h.carrying(ctx, cmd))
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		carrying := append([]redis.Cmder(nil), cmds...)
		if cmds[0].Name() == "multi" {
			// A transaction belongs to the context of its EXEC.
			last := len(cmds) - 1
			carrying[last] = h.carrying(ctx, cmds[last])
		} else {
			for i, cmd := range cmds {
				carrying[i] = h.carrying(ctx, cmd)
			}
		}
		return next(ctx, carrying)
	}
}

func (h *hook) carrying(ctx context.Context, cmd redis.Cmder) redis.Cmder {
	headers := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, headers)
	// The client itself looks for HIMPORT's commands by their type.
	if headers["traceparent"] == "" || strings.HasPrefix(cmd.Name(), "himport") {
		return cmd
	}
	carried := []interface{}{"otel.trace", headers["traceparent"]}
	// Their order tells them apart: a baggage stands behind a tracestate, if only an empty one.
	if headers["tracestate"] != "" || headers["baggage"] != "" {
		carried = append(carried, headers["tracestate"])
	}
	if headers["baggage"] != "" {
		carried = append(carried, headers["baggage"])
	}
	return &tracedCmd{Cmder: cmd, hook: h, carried: carried}
}

// tracedCmd is the command it holds, but for the arguments that are written.
type tracedCmd struct {
	redis.Cmder
	hook *hook
	// The wrapper's arguments, which stand in front of the command's own.
	carried []interface{}
}

// Args is what go-redis writes: by then there is a connection, and its server has answered HELLO.
func (c *tracedCmd) Args() []interface{} {
	args := c.Cmder.Args()
	if !c.hook.takesContext.Load() {
		return args
	}
	return append(append(make([]interface{}, 0, len(c.carried)+len(args)), c.carried...), args...)
}
