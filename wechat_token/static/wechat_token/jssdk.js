// Hands wx.config a signature of the page's address: docs/jssdk.md
(() => {
  'use strict';
  var ua = navigator.userAgent, data = document.currentScript.dataset, block = document.getElementById('wechat-jssdk');
  var page = block ? JSON.parse(block.textContent) : { ask: data.ask, apis: (data.apis || '').split(/[\s,]+/) };
  var own = page.config, zh = /^zh/i.test(document.documentElement.lang || navigator.language), turn = 0, last, asked;

  function address() { return location.href.split('#')[0]; }
  var entry = address();

  function say(en, cn) { console.error('wechat_token: ' + (zh ? cn : en)); }

  function tell(res) { document.dispatchEvent(new CustomEvent('wechat-jssdk', { detail: res })); }

  function explain(res) {
    var text = res.errMsg || '', real = String(res.realAuthUrl || ''), seen = real || address(), host = location.host;
    if (/invalid url domain/.test(text)) {
      say(host + ' is no JS domain at mp.weixin.qq.com; WeChat knows: ' + real, host + ' 不在“JS接口安全域名”中，微信登记的是：' + real);
    } else if (/invalid signature/.test(text)) {
      if (last.url !== seen) {
        say('The wrong URL was signed: ' + last.url + ', WeChat looks at: ' + seen,
          '签名的网址不对：签的是 ' + last.url + '，微信核对的是 ' + seen);
      } else if (last.fresh) {
        say('The URL is right, so the ticket is dead: refresh the jsapi_ticket.', '网址无误，是 jsapi_ticket 已失效，请刷新它。');
      } else {
        say('The ticket is dead, or a cache keeps this page: mount public_urls to sign it anew.',
          'jsapi_ticket 已失效，或本页被缓存：请启用 public_urls 以便重新签名。');
      }
    } else if (/permission/.test(text)) {
      say(text + ': not granted to this account, or not listed by the page.', text + '：公众号无此权限，或页面未列出该接口。');
    } else say(text, text);
    tell(res);
  }

  function config(signed, url, plan) {
    var failed, mine = turn, done = () => { if (!failed) tell({ errMsg: 'config:ok' }); };
    last = { url: url, fresh: signed !== own };
    wx.error((res) => {
      if (mine !== turn || failed) return;
      failed = true;
      if (/invalid signature/.test(res.errMsg) && plan.length) next(plan);
      else explain(res);
    });
    wx.config(Object.assign({ debug: !!page.debug, jsApiList: page.apis, openTagList: page.tags || [] }, signed));
    if (asked) setTimeout(done, 2000); // wx.ready waits for the first answer only
    else wx.ready(done);
    asked = true;
  }

  function next(plan) {
    var url = plan[0].url, mine = turn, rest = plan.slice(1);
    if (!plan[0].ask) return config(own, url, rest);
    fetch(page.ask + '?url=' + encodeURIComponent(url), { cache: 'no-store' }).then((res) => res.json()).then((signed) => {
      if (mine !== turn) return;
      if (!signed.signature) return explain({ errMsg: signed.error.code + ' ' + url });
      if (last.url === url && signed.timestamp - own.timestamp > 60) {
        say('A cache kept this page and its old signature.', '本页及其旧签名来自缓存，请勿缓存本页。');
      }
      config(signed, url, rest);
    }).catch((error) => explain({ errMsg: String(error) }));
  }

  // Users report: iOS checks the address of entry, Android the present one. The other is tried once.
  function sign() {
    var here = address(), urls = here === entry ? [here] : [here, entry], plan = [], again = [];
    if (/iPhone|iPad|iPod/.test(ua)) urls.reverse();
    urls.forEach((url) => {
      var mine = own && page.url === url;
      if (mine || page.ask) plan.push({ url: url, ask: !mine });
      if (mine && page.ask) again.push({ url: url, ask: true });
    });
    turn += 1;
    last = {};
    if (!window.wx || !/MicroMessenger/i.test(ua)) return;
    if (plan.length) next(plan.concat(again));
    else if (own) config(own, page.url, []);
    else explain({ errMsg: 'no ticket: see the log of the server' });
  }

  window.wechatJSSDK = sign;
  sign.explain = explain;
  sign();
})();
