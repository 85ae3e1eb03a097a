// node --require ./redirect.js drive.js NAME: one SDK through the steps; prints one line of JSON.
const crypto = require('crypto');
const { CentralToken } = require('./recipes/central-token.js');
const { signPage } = require('./recipes/central-signature.js');

const { APPID, CENTRE, KEY, FAKE_WECHAT } = process.env;

const PAGE = 'https://shop.example.com/sale?from=singlemessage';
const signOverHTTP = () => signPage(CENTRE, APPID, KEY, PAGE);

// Whether this is what WeChat computes with the ticket of the token server.
async function isSigned(signed) {
  const headers = { authorization: `Bearer ${KEY}` };
  const { ticket } = await (await fetch(`${CENTRE}/accounts/${APPID}/jsapi_ticket`, { headers })).json();
  const text = `jsapi_ticket=${ticket}&noncestr=${signed.nonceStr}&timestamp=${signed.timestamp}&url=${PAGE}`;
  return crypto.createHash('sha1').update(text).digest('hex') === signed.signature;
}

const drivers = {
  'co-wechat-api': () => {
    const tokens = new CentralToken(CENTRE, APPID, KEY);
    const api = require('./recipes/co-wechat-api.js').centralApi(APPID, tokens);
    return {
      token: async () => (await api.ensureAccessToken()).accessToken,
      call: async () => (await api.getUser('o1')).openid === 'o1',
      sign: signOverHTTP,
    };
  },
  'node-easywechat': () => {
    const tokens = new CentralToken(CENTRE, APPID, KEY);
    const app = require('./recipes/node-easywechat.js').centralApp({ app_id: APPID }, tokens);
    return {
      token: () => app.getAccessToken().getToken(),
      call: async () => {
        const answer = await app.getClient().get('/cgi-bin/user/info', { params: { openid: 'o1' } });
        return answer.toObject().openid === 'o1';
      },
      sign: signOverHTTP,
    };
  },
  'wechat-jssdk': () => {
    const { CentralJSSDK } = require('./recipes/wechat-jssdk.js');
    const { Store } = require('wechat-jssdk');
    const store = new Store({ noInterval: true });
    const ticketUrl = `${CENTRE}/cgi-bin/ticket/getticket`;
    const sdk = new CentralJSSDK({ appId: APPID, store, ticketUrl }, new CentralToken(CENTRE, APPID, KEY));
    return {
      token: async () => (await sdk.getAccessToken()).access_token,
      call: async () => Boolean((await sdk.getGlobalTokenAndTicket(true)).jsapi_ticket),
      sign: () => sdk.getSignature(PAGE),
    };
  },
};

async function main(name) {
  const report = { version: require(`${name}/package.json`).version, steps: {} };
  try {
    const sdk = drivers[name]();
    report.steps.token = (await sdk.token()).length > 20;
    report.steps.call = await sdk.call();
    if (sdk.sign) report.steps.signed = await isSigned(await sdk.sign());
    await fetch(`${FAKE_WECHAT}/_sandbox/kill_token`, { method: 'POST', body: JSON.stringify({ appid: APPID }) });
    report.steps.revoked = await sdk.call();
  } catch (error) {
    report.error = String((error && (error.stack || error.errmsg)) || JSON.stringify(error));
  }
  console.log(JSON.stringify(report));
  process.exit(0);
}

main(process.argv[2]);
