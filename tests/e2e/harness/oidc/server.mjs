// npm's oidc-provider as the tests' OpenID provider, with its own development pages: TLS on a free port of 127.0.0.1.
//
// Arguments: the folder node_modules. Standard input: the settings as one line of JSON; the server ends when standard
// input does, so that nothing is left behind by a test process that was killed. Standard output: one JSON object a
// line, {"event": "listening", "port": ...} first and then what happened.

import { once } from 'node:events';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const RESOURCE_SCOPES = ['IMAP', 'SMTP'];
const LEEWAY_S = 60; // a token that ends while a login is on its way is taken: Dovecot's clock has whole seconds

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

async function load(nodeModules) {
  const { resolve } = createRequire(join(nodeModules, 'here.js'));
  return import(pathToFileURL(resolve('oidc-provider')));
}

async function settings() {
  const lines = createInterface({ input: process.stdin });
  lines.on('close', () => process.exit(0));
  const [line] = await once(lines, 'line');
  return JSON.parse(line);
}

function configuration({ clients, jwk, lifetimeS, rotate }) {
  return {
    clients,
    jwks: { keys: [jwk] },
    clientAuthMethods: ['client_secret_post', 'private_key_jwt'],
    cookies: { keys: [jwk.d] },
    extraClientMetadata: { properties: ['mailbox'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // Mail programs name no resource: there is one, and it is meant.
        defaultResource: () => 'https://mail.example.com/',
        getResourceServerInfo: () => ({
          scope: RESOURCE_SCOPES.join(' '),
          audience: 'mail',
          accessTokenFormat: 'jwt',
          accessTokenTTL: lifetimeS,
          jwt: { sign: { alg: jwk.alg, kid: jwk.kid } },
        }),
      },
    },
    // Anyone may sign in with any password.
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    // A person's token opens that person's mailbox, an application's the one it was registered for.
    extraTokenClaims: (_ctx, token) => ({ email: token.accountId ?? token.client.mailbox }),
    formats: {
      customizers: {
        jwt: (_ctx, _token, jwt) => {
          jwt.header = { typ: 'JWT' }; // Dovecot 2.3 takes no other, not even RFC 9068's at+jwt
          jwt.payload.nbf = jwt.payload.iat;
          jwt.payload.exp += LEEWAY_S;
        },
      },
    },
    pkce: { required: () => true },
    rotateRefreshToken: rotate,
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    expiresWithSession: () => false,
  };
}

function report(provider) {
  const facts = ({ oidc }) => ({
    client: oidc.client?.clientId,
    authentication: oidc.client?.clientAuthMethod,
    account: oidc.entities.Account?.accountId,
    grant: oidc.params?.grant_type,
    challenge: oidc.params?.code_challenge_method,
    rotations: oidc.entities.RefreshToken?.rotations ?? 0,
  });
  for (const event of ['authorization.success', 'grant.success']) {
    provider.on(event, (ctx) => say({ event, ...facts(ctx) }));
  }
  for (const event of ['authorization.error', 'grant.error', 'server_error']) {
    provider.on(event, (ctx, error) => say({
      event, ...facts(ctx), error: error.message, description: error.error_description, detail: error.error_detail,
    }));
  }
}

console.info = console.error; // standard output is ours; oidc-provider has advice for production there

const [, , nodeModules] = process.argv;
const given = await settings();
const { Provider } = await load(nodeModules);
const server = createServer({ cert: given.certificate, key: given.key });
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();
const provider = new Provider(`https://localhost:${port}`, configuration(given));
report(provider);
server.on('request', provider.callback());
say({ event: 'listening', port });
