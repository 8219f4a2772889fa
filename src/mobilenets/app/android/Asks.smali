# What a page may ask for: the camera, nothing else, and a file that its user chooses.
.class public Lorg/mobilenets/camera/Asks;
.super Landroid/webkit/WebChromeClient;

.field private final main:Lorg/mobilenets/camera/Main;

.method public constructor <init>(Lorg/mobilenets/camera/Main;)V
    .locals 0
    invoke-direct {p0}, Landroid/webkit/WebChromeClient;-><init>()V
    iput-object p1, p0, Lorg/mobilenets/camera/Asks;->main:Lorg/mobilenets/camera/Main;
    return-void
.end method

.method public onPermissionRequest(Landroid/webkit/PermissionRequest;)V
    .locals 5
    iget-object v0, p0, Lorg/mobilenets/camera/Asks;->main:Lorg/mobilenets/camera/Main;
    invoke-virtual {p1}, Landroid/webkit/PermissionRequest;->getResources()[Ljava/lang/String;
    move-result-object v1
    array-length v2, v1
    const/4 v3, 0x1
    if-ne v2, v3, :refused
    const/4 v2, 0x0
    aget-object v2, v1, v2
    const-string v4, "android.webkit.resource.VIDEO_CAPTURE"
    invoke-virtual {v4, v2}, Ljava/lang/String;->equals(Ljava/lang/Object;)Z
    move-result v2
    if-eqz v2, :refused
    const-string v2, "android.permission.CAMERA"
    invoke-virtual {v0, v2}, Lorg/mobilenets/camera/Main;->checkSelfPermission(Ljava/lang/String;)I
    move-result v4
    if-nez v4, :ask
    invoke-virtual {p1, v1}, Landroid/webkit/PermissionRequest;->grant([Ljava/lang/String;)V
    return-void
    :ask
    iput-object p1, v0, Lorg/mobilenets/camera/Main;->asked:Landroid/webkit/PermissionRequest;
    new-array v1, v3, [Ljava/lang/String;
    const/4 v4, 0x0
    aput-object v2, v1, v4
    invoke-virtual {v0, v1, v3}, Lorg/mobilenets/camera/Main;->requestPermissions([Ljava/lang/String;I)V
    return-void
    :refused
    invoke-virtual {p1}, Landroid/webkit/PermissionRequest;->deny()V
    return-void
.end method

.method public onShowFileChooser(Landroid/webkit/WebView;Landroid/webkit/ValueCallback;Landroid/webkit/WebChromeClient$FileChooserParams;)Z
    .locals 4
    iget-object v0, p0, Lorg/mobilenets/camera/Asks;->main:Lorg/mobilenets/camera/Main;
    iput-object p2, v0, Lorg/mobilenets/camera/Main;->chosen:Landroid/webkit/ValueCallback;
    :try_start
    invoke-virtual {p3}, Landroid/webkit/WebChromeClient$FileChooserParams;->createIntent()Landroid/content/Intent;
    move-result-object v1
    invoke-virtual {p3}, Landroid/webkit/WebChromeClient$FileChooserParams;->getMode()I
    move-result v3
    if-eqz v3, :one
    const-string v2, "android.intent.extra.ALLOW_MULTIPLE"
    const/4 v3, 0x1
    invoke-virtual {v1, v2, v3}, Landroid/content/Intent;->putExtra(Ljava/lang/String;Z)Landroid/content/Intent;
    :one
    const/4 v2, 0x2
    invoke-virtual {v0, v1, v2}, Lorg/mobilenets/camera/Main;->startActivityForResult(Landroid/content/Intent;I)V
    :try_end
    .catch Landroid/content/ActivityNotFoundException; {:try_start .. :try_end} :none
    const/4 v1, 0x1
    return v1
    :none
    move-exception v1
    const/4 v1, 0x0
    iput-object v1, v0, Lorg/mobilenets/camera/Main;->chosen:Landroid/webkit/ValueCallback;
    return v1
.end method
