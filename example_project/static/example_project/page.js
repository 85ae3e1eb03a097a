// What WeChat answers is told by wechat_token's script, however often it has to try.
document.addEventListener('wechat-jssdk', (event) => {
  document.getElementById('outcome').textContent = event.detail.errMsg;
});
