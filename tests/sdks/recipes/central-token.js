class CentralToken {
  // One account's access_token from the token server. Needs Node 18 or later.
  constructor(url, appid, key) {
    this.url = `${url.replace(/\/+$/, '')}/accounts/${encodeURIComponent(appid)}/access_token`;
    this.headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
    this.token = '';
    this.goodUntil = 0;
  }

  // The token to use now. Use it for one call, then ask again.
  async get() {
    if (Date.now() >= this.goodUntil) await this.ask('', { method: 'GET' });
    return this.token;
  }

  // WeChat refused this token (40001, 40014, 42001): the one to use now, the same if WeChat accepts it.
  async complain(refused) {
    if (!this.token || this.token === refused) {
      await this.ask('/refresh', { method: 'POST', body: JSON.stringify({ stale_token: refused }) });
    }
    return this.token;
  }

  async ask(path, options) {
    const signal = AbortSignal.timeout(30000);
    const answer = await fetch(this.url + path, { ...options, headers: this.headers, signal });
    if (!answer.ok) throw new Error(`token server: HTTP ${answer.status}`);
    const body = await answer.json();
    this.token = body.access_token;
    this.goodUntil = Date.now() + Math.min(body.expires_in, 30) * 1000;
  }
}

module.exports = { CentralToken };
