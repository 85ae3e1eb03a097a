const WechatAPI = require('co-wechat-api');

function centralApi(appid, tokens) {
  let used;
  const getToken = async () => {
    used = await tokens.get();
    return { accessToken: used, expireTime: Infinity };
  };
  const api = new WechatAPI(appid, '', getToken, async () => {});
  // What it calls after 40001 and 42001, before it repeats the call (40014 it hands to you).
  api.getAccessToken = async () => ({ accessToken: await tokens.complain(used) });
  return api;
}

module.exports = { centralApi };
