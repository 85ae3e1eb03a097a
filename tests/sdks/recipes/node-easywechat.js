const { OfficialAccount } = require('node-easywechat');

const DEAD = [40001, 40014, 42001];

function centralApp(options, tokens) {
  const app = new OfficialAccount(options);
  app.setAccessToken({
    getToken: () => tokens.get(),
    toQuery: async () => ({ access_token: await tokens.get() }),
  });
  // It does not repeat calls by itself; its axios instance can be taught to.
  const http = app.getHttpClient().getInstance();
  http.interceptors.response.use(async (response) => {
    const { config, data } = response;
    const refused = config.params && config.params.access_token;
    if (!refused || config.repeated || !data || !DEAD.includes(Number(data.errcode))) return response;
    const token = await tokens.complain(refused);
    // A streamed form cannot be sent twice: the caller sees the refusal, the next call has the new token.
    if (token === refused || (config.data && config.data.pipe)) return response;
    return http.request({ ...config, params: { ...config.params, access_token: token }, repeated: true });
  });
  return app;
}

module.exports = { centralApp };
