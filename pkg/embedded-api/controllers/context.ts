/** What a controller works with. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import type { Storage } from '#pkg/embedded-api/storage.ts';

export interface ControllerContext {
  /** To follow changes; controllers write through `access`. */
  readonly storage: Storage;
  readonly access: ApiAccess;
  readonly clock: Clock;
  readonly log: Logger;
}
