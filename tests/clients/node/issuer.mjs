// A certified OpenID Connect provider (oidc-provider) on a port of loopback: `node issuer.mjs PORT`.
// Its clients get tokens by their credentials. POST /-/rotate gives it a new signing key, POST /-/down and /-/up stop and
// start its answers, GET /-/asked counts requests for its keys. People log in to the client `console`, whose address is
// /-/console?URL; whoever comes is the person of /-/person?NAME, without a form.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
// Who a client acts for, beside its own id as `sub`.
const claims = {
  user_vip_01: {},
  intern: { groups: ["guests", "standard-team"] },
  nobody: { groups: ["guests"] },
  mailed: { email: "user_vip_01" },
};
// People who log in to the console, and their groups.
const people = {
  ada: ["everyone"],
  grace: ["everyone", "sre"],
  blue: ["team-blue", "everyone"],
  stranger: ["visitors"],
};
let person = "ada";
let console_urls = [`${issuer}/unused`];
const client = (id) => ({
  client_id: id,
  client_secret: "secret",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: algorithm,
});
let algorithm = "RS256";

const console_client = () => ({
  client_id: "console",
  client_secret: "a secret: with & signs",
  grant_types: ["authorization_code"],
  response_types: ["code"],
  redirect_uris: console_urls,
  id_token_signed_response_alg: algorithm,
});

const new_key = () => {
  const kind = algorithm === "RS256" ? ["rsa", { modulusLength: 2048 }] : ["ec", { namedCurve: "P-256" }];
  const key = generateKeyPairSync(...kind).privateKey.export({ format: "jwk" });
  return { ...key, kid: randomUUID(), use: "sig", alg: algorithm };
};
let key = new_key();

function provider() {
  const made = new Provider(issuer, {
    clients: [...Object.keys(claims).map(client), console_client()],
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: people[id] }) }),
    claims: { openid: ["sub"], groups: ["groups"] },
    scopes: ["openid", "groups"],
    conformIdTokenClaims: false,
    interactions: { url: (_, interaction) => `/-/login/${interaction.uid}` },
    cookies: { keys: ["of this test"] },
    // Nobody is asked whether the console may know the groups.
    loadExistingGrant: async (context) => {
      const grant = new context.oidc.provider.Grant({
        clientId: context.oidc.client.clientId,
        accountId: context.oidc.session.accountId,
      });
      grant.addOIDCScope("openid groups");
      await grant.save();
      return grant;
    },
    jwks: { keys: [key] },
    extraTokenClaims: (_, token) => claims[token.clientId],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          audience: resource.replace("https://", ""),
          scope: "",
          accessTokenFormat: "jwt",
          accessTokenTTL: 600,
          jwt: { sign: { alg: algorithm } },
        }),
      },
    },
  });
  return Object.assign(made.callback(), { made });
}

let serve = provider();
let isUp = true;
let asked = 0;
createServer((request, response) => {
  const said = (status, text) => response.writeHead(status).end(text);
  const [path, query] = request.url.split("?");
  if (path === "/-/person") {
    person = query;
    return said(200, person);
  }
  if (path === "/-/console") {
    console_urls = [decodeURIComponent(query)];
    serve = provider();
    return said(200, query);
  }
  if (path.startsWith("/-/login/")) {
    const finished = serve.made.interactionFinished(request, response, { login: { accountId: person, remember: false } });
    return finished.catch((error) => said(500, String(error)));
  }
  switch (request.url) {
    case "/-/rotate":
      algorithm = algorithm === "RS256" ? "ES256" : "RS256";
      key = new_key();
      serve = provider();
      return said(200, "rotated");
    case "/-/down":
      isUp = false;
      return said(200, "down");
    case "/-/up":
      isUp = true;
      return said(200, "up");
    case "/-/asked":
      return said(200, String(asked));
  }
  if (request.url === "/jwks") asked += 1;
  if (!isUp) return said(503, "down");
  return serve(request, response);
}).listen(port, "127.0.0.1", () => console.log("issuer ready"));
