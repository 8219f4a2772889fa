# The whole screen is a page whose files lie in the package. There is no permission for the network.
.class public Lorg/mobilenets/camera/Main;
.super Landroid/app/Activity;

.field public asked:Landroid/webkit/PermissionRequest;
.field public chosen:Landroid/webkit/ValueCallback;

.method public constructor <init>()V
    .locals 0
    invoke-direct {p0}, Landroid/app/Activity;-><init>()V
    return-void
.end method

.method protected onCreate(Landroid/os/Bundle;)V
    .locals 4
    invoke-super {p0, p1}, Landroid/app/Activity;->onCreate(Landroid/os/Bundle;)V
    new-instance v0, Landroid/webkit/WebView;
    invoke-direct {v0, p0}, Landroid/webkit/WebView;-><init>(Landroid/content/Context;)V
    invoke-virtual {v0}, Landroid/webkit/WebView;->getSettings()Landroid/webkit/WebSettings;
    move-result-object v1
    const/4 v2, 0x1
    invoke-virtual {v1, v2}, Landroid/webkit/WebSettings;->setJavaScriptEnabled(Z)V
    invoke-virtual {v1, v2}, Landroid/webkit/WebSettings;->setDomStorageEnabled(Z)V
    const/4 v2, 0x0
    invoke-virtual {v1, v2}, Landroid/webkit/WebSettings;->setMediaPlaybackRequiresUserGesture(Z)V
    invoke-virtual {v1, v2}, Landroid/webkit/WebSettings;->setAllowFileAccess(Z)V
    invoke-virtual {v1, v2}, Landroid/webkit/WebSettings;->setAllowContentAccess(Z)V
    new-instance v1, Lorg/mobilenets/camera/Files;
    invoke-virtual {p0}, Lorg/mobilenets/camera/Main;->getAssets()Landroid/content/res/AssetManager;
    move-result-object v2
    invoke-direct {v1, v2}, Lorg/mobilenets/camera/Files;-><init>(Landroid/content/res/AssetManager;)V
    invoke-virtual {v0, v1}, Landroid/webkit/WebView;->setWebViewClient(Landroid/webkit/WebViewClient;)V
    new-instance v1, Lorg/mobilenets/camera/Asks;
    invoke-direct {v1, p0}, Lorg/mobilenets/camera/Asks;-><init>(Lorg/mobilenets/camera/Main;)V
    invoke-virtual {v0, v1}, Landroid/webkit/WebView;->setWebChromeClient(Landroid/webkit/WebChromeClient;)V
    new-instance v1, Lorg/mobilenets/camera/Saver;
    invoke-virtual {p0}, Lorg/mobilenets/camera/Main;->getContentResolver()Landroid/content/ContentResolver;
    move-result-object v2
    invoke-direct {v1, v2}, Lorg/mobilenets/camera/Saver;-><init>(Landroid/content/ContentResolver;)V
    const-string v2, "saver"
    invoke-virtual {v0, v1, v2}, Landroid/webkit/WebView;->addJavascriptInterface(Ljava/lang/Object;Ljava/lang/String;)V
    invoke-virtual {p0, v0}, Lorg/mobilenets/camera/Main;->setContentView(Landroid/view/View;)V
    const-string v1, "https://app.mobilenets.invalid/index.html"
    invoke-virtual {v0, v1}, Landroid/webkit/WebView;->loadUrl(Ljava/lang/String;)V
    return-void
.end method

# The page asked for the camera, and so did the app: the page gets what the app got.
.method public onRequestPermissionsResult(I[Ljava/lang/String;[I)V
    .locals 2
    iget-object v0, p0, Lorg/mobilenets/camera/Main;->asked:Landroid/webkit/PermissionRequest;
    if-eqz v0, :done
    const/4 v1, 0x0
    iput-object v1, p0, Lorg/mobilenets/camera/Main;->asked:Landroid/webkit/PermissionRequest;
    array-length v1, p3
    if-eqz v1, :refused
    const/4 v1, 0x0
    aget v1, p3, v1
    if-nez v1, :refused
    invoke-virtual {v0}, Landroid/webkit/PermissionRequest;->getResources()[Ljava/lang/String;
    move-result-object v1
    invoke-virtual {v0, v1}, Landroid/webkit/PermissionRequest;->grant([Ljava/lang/String;)V
    goto :done
    :refused
    invoke-virtual {v0}, Landroid/webkit/PermissionRequest;->deny()V
    :done
    return-void
.end method

# parseResult knows of one file; of several the clip does.
.method protected onActivityResult(IILandroid/content/Intent;)V
    .locals 5
    iget-object v0, p0, Lorg/mobilenets/camera/Main;->chosen:Landroid/webkit/ValueCallback;
    if-eqz v0, :done
    const/4 v1, 0x0
    iput-object v1, p0, Lorg/mobilenets/camera/Main;->chosen:Landroid/webkit/ValueCallback;
    const/4 v1, -0x1
    if-ne p2, v1, :single
    if-eqz p3, :single
    invoke-virtual {p3}, Landroid/content/Intent;->getClipData()Landroid/content/ClipData;
    move-result-object v2
    if-eqz v2, :single
    invoke-virtual {v2}, Landroid/content/ClipData;->getItemCount()I
    move-result v3
    new-array v1, v3, [Landroid/net/Uri;
    :next
    add-int/lit8 v3, v3, -0x1
    if-ltz v3, :given
    invoke-virtual {v2, v3}, Landroid/content/ClipData;->getItemAt(I)Landroid/content/ClipData$Item;
    move-result-object v4
    invoke-virtual {v4}, Landroid/content/ClipData$Item;->getUri()Landroid/net/Uri;
    move-result-object v4
    aput-object v4, v1, v3
    goto :next
    :single
    invoke-static {p2, p3}, Landroid/webkit/WebChromeClient$FileChooserParams;->parseResult(ILandroid/content/Intent;)[Landroid/net/Uri;
    move-result-object v1
    :given
    invoke-interface {v0, v1}, Landroid/webkit/ValueCallback;->onReceiveValue(Ljava/lang/Object;)V
    :done
    return-void
.end method
