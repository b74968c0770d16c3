/** The bodies that the Worker API takes and gives, by the names of its document. */

export interface Repository {
  /** Such as `https://github.com/owner/repo`. */
  readonly url?: string | undefined;
  /** Such as `owner/repo`. */
  readonly name?: string | undefined;
  readonly branch?: string | undefined;
}

export interface SessionOptions {
  /** 10 where it is not given. */
  readonly maxTurns?: number | undefined;
  /** `acceptEdits` where it is not given. */
  readonly permissionMode?: string | undefined;
  /** Whether changes become a pull request; false where it is not given. */
  readonly createPR?: boolean | undefined;
  /** What becomes of the work where the reader leaves; `continue` where it is not given. With `cancel`, so does a
   * connection that breaks. */
  readonly onDisconnect?: 'continue' | 'cancel' | undefined;
}

export interface StartOptions {
  readonly prompt: string;
  /** `owner/repo`, a URL, a path on the server, or an object with a branch, too; without one, an empty folder. */
  readonly repository?: string | Repository | undefined;
  /** A random one is made where it is not given. */
  readonly sessionId?: string | undefined;
  /** For this session, in place of the key that the server has. */
  readonly anthropicApiKey?: string | undefined;
  readonly anthropicBaseUrl?: string | undefined;
  /** For this session's pull request. */
  readonly githubToken?: string | undefined;
  readonly options?: SessionOptions | undefined;
  /** Ends the reading of the session, not its work: for that there is `session.end()`. */
  readonly signal?: AbortSignal | undefined;
}

export interface SessionStatus {
  readonly sessionId: string;
  readonly status: 'processing' | 'completed' | 'error';
  readonly currentTurn: number;
  readonly repository?: Repository | null;
  /** These are milliseconds since 1970. */
  readonly createdAt: number;
  readonly lastActivityAt: number;
  readonly completedAt?: number | null;
  readonly errorMessage?: string | null;
}

export interface ComponentHealth {
  readonly status: string;
  readonly message?: string | null;
  readonly configured?: boolean | null;
}

export interface Health {
  readonly status: 'healthy' | 'degraded' | 'unhealthy';
  readonly timestamp: string;
  readonly uptime: number;
  readonly version: string;
  readonly environment: string;
  readonly components: Readonly<Record<string, ComponentHealth>>;
  readonly metrics: {
    readonly requests: {
      readonly total: number;
      readonly byRoute: Readonly<Record<string, number>>;
      readonly byStatus: Readonly<Record<string, number>>;
      readonly successRate: number;
    };
    readonly containers: { readonly active: number; readonly total: number; readonly errors: number };
    readonly averageResponseTime: number;
    readonly errorRate: number;
  };
  readonly quota: {
    readonly dailyTokens: number;
    readonly maxDailyTokens: number;
    readonly remainingTokens: number;
    /** In US dollars, like the next two. */
    readonly dailyCost: number;
    readonly maxDailyCost: number;
    readonly remainingCost: number;
    readonly activeSessions: number;
    readonly maxConcurrentSessions: number;
    readonly allowed: boolean;
    readonly reason?: string | null;
  };
  readonly github: {
    readonly appId?: string | null;
    readonly installationId?: string | null;
    readonly repositoryCount: number;
    readonly totalWebhooks: number;
    readonly lastWebhookAt?: string | null;
  };
}
