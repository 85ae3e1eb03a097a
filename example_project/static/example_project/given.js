const given = JSON.parse(document.getElementById('wechat-jssdk').textContent);
document.getElementById('given').textContent = JSON.stringify(given.config || 'no ticket now', null, 2);
if (window.wx) {
  wx.ready(() => {
    const share = { title: document.title, desc: 'Shared by one tag.', link: location.href, imgUrl: '' };
    wx.updateAppMessageShareData(share);
    wx.updateTimelineShareData(share);
  });
}
