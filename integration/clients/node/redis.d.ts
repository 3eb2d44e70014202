import { InstrumentationBase, type InstrumentationConfig, type InstrumentationNodeModuleDefinition } from "@opentelemetry/instrumentation";

/** Registered in front of RedisInstrumentation, so that it sees the span that the latter makes current. */
export class RedisContextInstrumentation extends InstrumentationBase {
  constructor(config?: InstrumentationConfig);
  protected init(): InstrumentationNodeModuleDefinition[];
}
