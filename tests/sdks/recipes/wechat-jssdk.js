const { JSSDK } = require('wechat-jssdk');

class CentralJSSDK extends JSSDK {
  constructor(options, tokens) {
    super({ appSecret: 'not used', ...options });
    this.tokens = tokens;
  }

  async getAccessToken() {
    return { access_token: await this.tokens.get() };
  }

  async getJsApiTicket(accessToken) {
    try {
      return await super.getJsApiTicket(accessToken);
    } catch (error) {
      if (![40001, 40014, 42001].includes(Number(error.errcode))) throw error;
      const token = await this.tokens.complain(accessToken);
      if (token === accessToken) throw error;
      return super.getJsApiTicket(token);
    }
  }
}

module.exports = { CentralJSSDK };
