// What wx.config takes for `page` (location.href). key: a client key made with --may-read signatures.
async function signPage(url, appid, key, page) {
  const path = `/accounts/${encodeURIComponent(appid)}/jsapi_signature?url=${encodeURIComponent(page)}`;
  const headers = { authorization: `Bearer ${key}` };
  const answer = await fetch(url.replace(/\/+$/, '') + path, { headers, signal: AbortSignal.timeout(30000) });
  if (!answer.ok) throw new Error(`token server: HTTP ${answer.status}`);
  return answer.json();
}

module.exports = { signPage };
