/** What a CNI plugin is to the protocol: functions from a request to a result. */
import type { NetworkConfig } from './config.ts';
import type { Attachment, Environment } from './environment.ts';
import type { CniResult } from './result.ts';

/** One call, checked: all a plugin needs to know of its caller. */
export interface CniRequest extends Attachment {
  readonly config: NetworkConfig;
  /** Path of the container's network namespace; undefined when it is gone (DEL), or for GC. */
  readonly netns: string | undefined;
  /** CNI_ARGS, verbatim. */
  readonly args: string;
  /** Directories with other plugins. */
  readonly path: readonly string[];
  /** What a plugin we delegate to inherits. */
  readonly environment: Environment;
}

/** An ADD or CHECK always names a namespace. */
export interface CniAddRequest extends CniRequest {
  readonly netns: string;
}

/**
 * Every function returns when the work is done and throws when it is not; nothing waits for an
 * event loop. CHECK, GC and STATUS may be absent, and then succeed (CNI spec 1.1.0, "Section 2").
 */
export interface CniPlugin {
  /** One line for people who run the program by hand. */
  readonly about: string;
  /** All or nothing: after a throw the host is as it was. */
  readonly add: (request: CniAddRequest) => CniResult;
  /** Idempotent: what is gone already is success. */
  readonly del: (request: CniRequest) => void;
  readonly check?: (request: CniAddRequest) => void;
  readonly status?: (request: CniRequest) => void;
  /** Removes what belongs to this network and to none of `cni.dev/valid-attachments`. */
  readonly gc?: (request: CniRequest) => void;
}
