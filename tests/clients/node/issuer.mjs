// A certified OpenID Connect provider (oidc-provider) on a port of loopback: `node issuer.mjs PORT`.
// Its clients get tokens by their credentials. POST /-/rotate gives it a new signing key, POST /-/down and /-/up stop and
// start its answers, GET /-/asked counts requests for its keys.
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
const client = (id) => ({
  client_id: id,
  client_secret: "secret",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  id_token_signed_response_alg: algorithm,
});
let algorithm = "RS256";

function provider() {
  const kind = algorithm === "RS256" ? ["rsa", { modulusLength: 2048 }] : ["ec", { namedCurve: "P-256" }];
  const key = generateKeyPairSync(...kind).privateKey.export({ format: "jwk" });
  return new Provider(issuer, {
    clients: Object.keys(claims).map(client),
    jwks: { keys: [{ ...key, kid: randomUUID(), use: "sig", alg: algorithm }] },
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
  }).callback();
}

let serve = provider();
let isUp = true;
let asked = 0;
createServer((request, response) => {
  const said = (status, text) => response.writeHead(status).end(text);
  switch (request.url) {
    case "/-/rotate":
      algorithm = algorithm === "RS256" ? "ES256" : "RS256";
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
